-- An account's own orders, newest first. Of the orders without an account there may be very many, and no list needs this
-- for them. Where writing must not wait for it, make it beforehand, without a lock.
CREATE INDEX IF NOT EXISTS orders_account ON orders (account, id) WHERE account <> '';
