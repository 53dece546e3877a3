-- How far a webhook has been told of an order. sent: the last event that it took. lease: counts the claims, as in queue.
-- dead_at_ms: when it was given up. A row goes once the order's last event was taken.
CREATE TABLE deliveries (
    webhook_id text COLLATE "C" NOT NULL,
    order_id   text COLLATE "C" NOT NULL,
    sent       integer NOT NULL DEFAULT 0,
    tries      integer NOT NULL DEFAULT 0,
    due_at_ms  bigint  NOT NULL,
    lease      integer NOT NULL DEFAULT 0,
    error      text    NOT NULL DEFAULT '',
    dead_at_ms bigint,
    PRIMARY KEY (webhook_id, order_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 2000);

CREATE INDEX deliveries_due ON deliveries (webhook_id, due_at_ms) WHERE dead_at_ms IS NULL;
CREATE INDEX deliveries_dead ON deliveries (dead_at_ms) WHERE dead_at_ms IS NOT NULL;
CREATE INDEX deliveries_failed ON deliveries (webhook_id) WHERE error <> '';
