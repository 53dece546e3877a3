-- What the orders of a day (UTC, counted from the epoch) count for: whose, what of, how much. In shards, so that those
-- who write at the same time seldom wait for each other; the sum is what counts.
CREATE TABLE usage (
    day    integer NOT NULL,
    whose  text COLLATE "C" NOT NULL,
    what   text COLLATE "C" NOT NULL,
    shard  integer NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (day, whose, what, shard)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Whose the open orders are, and whose key brought them, for the limits on them.
ALTER TABLE queue ADD COLUMN account text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE queue ADD COLUMN key_id text COLLATE "C" NOT NULL DEFAULT '';
UPDATE queue q SET account = o.account FROM orders o WHERE o.id = q.order_id AND o.account <> '';
CREATE INDEX queue_account ON queue (account) WHERE account <> '';
CREATE INDEX queue_key ON queue (key_id) WHERE key_id <> '';
