-- The events are the truth; a row of orders is its identity, its place in the queue and its last word.
CREATE TABLE events (
    order_id  TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    type      TEXT    NOT NULL,
    data      TEXT    NOT NULL,
    signature TEXT,
    PRIMARY KEY (order_id, seq)
);

CREATE UNIQUE INDEX events_signature ON events (signature) WHERE signature IS NOT NULL;

-- due_at_ms: when a worker may take the order next. While a worker holds it, that is the end of its lease. NULL: over.
-- lease: counts the claims; an append must name the newest. started_at_ms: the first claim, for the rate limit.
CREATE TABLE orders (
    id              TEXT PRIMARY KEY,
    client_order_id TEXT,
    mint_in         TEXT    NOT NULL,
    mint_out        TEXT    NOT NULL,
    expires_at_ms   INTEGER,
    outcome         TEXT,
    due_at_ms       INTEGER,
    started_at_ms   INTEGER,
    lease           INTEGER NOT NULL DEFAULT 0,
    leased_by       TEXT
);

CREATE UNIQUE INDEX orders_client_order_id ON orders (client_order_id) WHERE client_order_id IS NOT NULL;
CREATE INDEX orders_fresh ON orders (due_at_ms) WHERE due_at_ms IS NOT NULL AND started_at_ms IS NULL;
CREATE INDEX orders_begun ON orders (due_at_ms) WHERE due_at_ms IS NOT NULL AND started_at_ms IS NOT NULL;
CREATE INDEX orders_expiring ON orders (expires_at_ms)
    WHERE expires_at_ms IS NOT NULL AND due_at_ms IS NOT NULL AND started_at_ms IS NULL;
CREATE INDEX orders_started ON orders (started_at_ms) WHERE started_at_ms IS NOT NULL;
CREATE INDEX orders_outcome ON orders (outcome, id);

-- How many orders were accepted and how many ended how, so that nobody has to count a table that only grows.
CREATE TABLE tally (
    status TEXT PRIMARY KEY,
    orders INTEGER NOT NULL
) WITHOUT ROWID;

-- What must stay the same for as long as there are orders: which chain they are on.
CREATE TABLE pins (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
