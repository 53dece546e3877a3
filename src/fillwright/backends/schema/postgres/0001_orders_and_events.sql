-- The events are the truth. Whatever is written for good (events, orders, outcomes) is only ever inserted; what changes
-- (the queue) is small, because an order leaves it when it is over. So the large tables need no vacuuming to stay fast.
-- Text sorts by its bytes: ids sort by age, and comparing them is cheap.

CREATE TABLE events (
    order_id  text COLLATE "C" NOT NULL,
    seq       integer NOT NULL,
    at_ms     bigint  NOT NULL,
    type      text    NOT NULL,
    data      text    NOT NULL,
    signature text COLLATE "C",
    PRIMARY KEY (order_id, seq)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

CREATE UNIQUE INDEX events_signature ON events (signature) WHERE signature IS NOT NULL;

-- A table that is filled at its end is sorted by time nearly by itself: this index is a page or two for a million events.
CREATE INDEX events_at ON events USING brin (at_ms) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE orders (
    id              text COLLATE "C" PRIMARY KEY,
    client_order_id text COLLATE "C",
    mint_in         text COLLATE "C" NOT NULL,
    mint_out        text COLLATE "C" NOT NULL
);

CREATE UNIQUE INDEX orders_client_order_id ON orders (client_order_id) WHERE client_order_id IS NOT NULL;

CREATE TABLE outcomes (
    outcome  text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (outcome, order_id)
);

-- The orders that are not over. due_at_ms: when a worker may take the order next; while a worker holds it, that is the
-- end of its lease. lease: counts the claims; an append must name the newest. begun: it was taken before, so it no longer
-- counts for the rate limit.
CREATE TABLE queue (
    order_id      text COLLATE "C" PRIMARY KEY,
    due_at_ms     bigint  NOT NULL,
    begun         boolean NOT NULL DEFAULT false,
    lease         integer NOT NULL DEFAULT 0,
    leased_by     text,
    expires_at_ms bigint
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.1,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX queue_due ON queue (begun, due_at_ms);
CREATE INDEX queue_expiring ON queue (expires_at_ms) WHERE expires_at_ms IS NOT NULL AND NOT begun;

-- How many orders were first taken when, a row a claim, for the rate limit. Rows older than its window go.
CREATE TABLE starts (
    at_ms  bigint  NOT NULL,
    orders integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 2000);

CREATE INDEX starts_at ON starts (at_ms);

-- How many orders were accepted and how many ended how. In shards, so that those who write at the same time seldom wait
-- for each other; the sum is what counts.
CREATE TABLE tally (
    status text COLLATE "C" NOT NULL,
    shard  integer NOT NULL,
    orders bigint  NOT NULL,
    PRIMARY KEY (status, shard)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- What must stay the same for as long as there are orders: which chain they are on.
CREATE TABLE pins (
    name  text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);
