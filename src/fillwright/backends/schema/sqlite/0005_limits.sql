-- What the orders of a day (UTC, counted from the epoch) count for: whose, what of, how much. Amounts are text: a sum of
-- them may be larger than an integer here can be.
CREATE TABLE usage (
    day    INTEGER NOT NULL,
    whose  TEXT    NOT NULL,
    what   TEXT    NOT NULL,
    amount TEXT    NOT NULL,
    PRIMARY KEY (day, whose, what)
) WITHOUT ROWID;

-- Whose key brought an order; empty if none did.
ALTER TABLE orders ADD COLUMN key_id TEXT NOT NULL DEFAULT '';

-- The open orders of an account, by the key that brought them, for the limits on them.
CREATE INDEX orders_open ON orders (account, key_id) WHERE account <> '' AND outcome IS NULL
