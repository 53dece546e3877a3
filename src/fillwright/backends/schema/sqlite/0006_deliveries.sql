-- How far a webhook has been told of an order. sent: the last event that it took. lease: counts the claims, as in orders.
-- dead_at_ms: when it was given up. A row goes once the order's last event was taken.
CREATE TABLE deliveries (
    webhook_id TEXT    NOT NULL,
    order_id   TEXT    NOT NULL,
    sent       INTEGER NOT NULL DEFAULT 0,
    tries      INTEGER NOT NULL DEFAULT 0,
    due_at_ms  INTEGER NOT NULL,
    lease      INTEGER NOT NULL DEFAULT 0,
    error      TEXT    NOT NULL DEFAULT '',
    dead_at_ms INTEGER,
    PRIMARY KEY (webhook_id, order_id)
) WITHOUT ROWID;

CREATE INDEX deliveries_due ON deliveries (webhook_id, due_at_ms) WHERE dead_at_ms IS NULL;
CREATE INDEX deliveries_dead ON deliveries (dead_at_ms) WHERE dead_at_ms IS NOT NULL;
CREATE INDEX deliveries_failed ON deliveries (webhook_id) WHERE error <> ''
