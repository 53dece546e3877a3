"""The statements of the PostgreSQL store. Each batch is one of them, and each is a transaction of its own.

Who locks what, and in which order, so that no two statements can wait for each other: rows of `queue` that a statement
changes are locked first, in the order of their ids; keys of `events` come after. A claim and a renewal never wait for a
row of `queue`: they pass over what is locked. New orders are inserted in the order of their client order ids.
"""

from __future__ import annotations

from typing import Final

# $1 ids, $2 client order ids with their accounts, $3 $4 mints, $5 expiries, $6 times, $7 event types, $8 event data,
# $9 capacity, $10 shard, $11 accounts, $12 keys; $13 orders, $14 days, $15 whose, $16 what of and $17 how much they
# count for; $18 orders and $19 the webhooks that are to be told of them
ACCEPT: Final = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[],
        $8::text[], $11::text[], $12::text[]) WITH ORDINALITY
        AS g (id, client_order_id, mint_in, mint_out, expires_at_ms, at_ms, type, data, account, key_id, place)
), room AS (
    SELECT CASE WHEN current_mode() = 'active' THEN $9::bigint ELSE 0 END
        - coalesce(sum(CASE status WHEN 'accepted' THEN orders ELSE -orders END), 0) AS orders FROM tally
), new_orders AS (
    INSERT INTO orders (id, client_order_id, account, mint_in, mint_out)
    SELECT id, client_order_id, account, mint_in, mint_out FROM given
    ORDER BY client_order_id, id LIMIT (SELECT greatest(0, orders) FROM room)
    RETURNING id
), first_events AS (
    INSERT INTO events (order_id, seq, at_ms, type, data)
    SELECT id, 1, at_ms, type, data FROM given JOIN new_orders USING (id)
), queued AS (
    INSERT INTO queue (order_id, due_at_ms, expires_at_ms, account, key_id)
    SELECT id, at_ms, expires_at_ms, account, key_id FROM given JOIN new_orders USING (id)
), counted AS (
    INSERT INTO tally (status, shard, orders) SELECT 'accepted', $10::int, count(*) FROM new_orders HAVING count(*) > 0
    ON CONFLICT (status, shard) DO UPDATE SET orders = tally.orders + excluded.orders
), used AS (
    INSERT INTO usage (day, whose, what, shard, amount)
    SELECT u.day, u.whose, u.what, $10::int, sum(u.amount::numeric)
    FROM unnest($13::text[], $14::int[], $15::text[], $16::text[], $17::text[]) AS u (id, day, whose, what, amount)
    JOIN new_orders USING (id) GROUP BY u.day, u.whose, u.what ORDER BY u.day, u.whose, u.what
    ON CONFLICT (day, whose, what, shard) DO UPDATE SET amount = usage.amount + excluded.amount
), to_deliver AS (
    INSERT INTO deliveries (webhook_id, order_id, due_at_ms)
    SELECT w.webhook_id, id, g.at_ms FROM unnest($18::text[], $19::text[]) AS w (id, webhook_id)
    JOIN new_orders USING (id) JOIN given g USING (id)
)
SELECT id FROM new_orders
"""

# The same where a client order id may be known already, or an earlier try may have been carried out. What is known
# takes no room; of what is twice in a batch, the first is taken.
ACCEPT_UNLESS_KNOWN: Final = ACCEPT.replace("RETURNING id", "ON CONFLICT DO NOTHING RETURNING id").replace(
    "mint_out FROM given\n",
    """mint_out FROM (
        SELECT DISTINCT ON (client_order_id, CASE WHEN client_order_id IS NULL THEN id END) * FROM given g
        WHERE NOT EXISTS (SELECT FROM orders o WHERE o.client_order_id = g.client_order_id)
        ORDER BY client_order_id, CASE WHEN client_order_id IS NULL THEN id END, place
    ) AS unknown
""",
)

KNOWN: Final = "SELECT id, client_order_id FROM orders WHERE id = ANY($1::text[]) OR client_order_id = ANY($2::text[])"

# $1 order ids, $2 seqs, $3 times, $4 types, $5 data, $6 signatures, $7 leases, $8 outcomes, $9 due times,
# $10 the orders whose row in `queue` changes, $11 shard; $12 orders, $13 days, $14 whose, $15 what of and $16 how much
# they count for no more
APPEND: Final = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[],
        $9::bigint[]) AS g (order_id, seq, at_ms, type, data, signature, lease, outcome, due_at_ms)
), locked AS MATERIALIZED (
    SELECT order_id FROM queue WHERE order_id = ANY($10::text[]) ORDER BY order_id FOR UPDATE
), admitted AS MATERIALIZED (
    SELECT g.* FROM given g JOIN queue q ON q.order_id = g.order_id AND (g.lease IS NULL OR g.lease = q.lease)
    WHERE (SELECT count(*) FROM locked) >= 0
        AND EXISTS (SELECT FROM events e WHERE e.order_id = g.order_id AND e.seq = g.seq - 1)
), appended AS (
    INSERT INTO events (order_id, seq, at_ms, type, data, signature)
    SELECT order_id, seq, at_ms, type, data, signature FROM admitted ORDER BY order_id
    RETURNING order_id
), settled AS MATERIALIZED (
    SELECT a.order_id, a.outcome, a.due_at_ms FROM admitted a JOIN appended USING (order_id)
    WHERE a.outcome IS NOT NULL OR a.due_at_ms IS NOT NULL
), gone AS (
    DELETE FROM queue q USING settled s WHERE s.outcome IS NOT NULL AND q.order_id = s.order_id
), resting AS (
    UPDATE queue q SET due_at_ms = s.due_at_ms, leased_by = NULL FROM settled s
    WHERE s.outcome IS NULL AND q.order_id = s.order_id
), ended AS (
    INSERT INTO outcomes (outcome, order_id) SELECT outcome, order_id FROM settled WHERE outcome IS NOT NULL
), counted AS (
    INSERT INTO tally (status, shard, orders)
    SELECT outcome, $11::int, count(*) FROM settled WHERE outcome IS NOT NULL GROUP BY outcome ORDER BY outcome
    ON CONFLICT (status, shard) DO UPDATE SET orders = tally.orders + excluded.orders
), given_back AS (
    INSERT INTO usage (day, whose, what, shard, amount)
    SELECT u.day, u.whose, u.what, $11::int, -sum(u.amount::numeric)
    FROM unnest($12::text[], $13::int[], $14::text[], $15::text[], $16::text[])
        AS u (order_id, day, whose, what, amount)
    JOIN settled USING (order_id) GROUP BY u.day, u.whose, u.what ORDER BY u.day, u.whose, u.what
    ON CONFLICT (day, whose, what, shard) DO UPDATE SET amount = usage.amount + excluded.amount
)
SELECT order_id FROM appended
"""

# The same where an event may be there already: another writer was faster, or an earlier try may have been carried out.
APPEND_UNLESS_THERE: Final = APPEND.replace("RETURNING order_id", "ON CONFLICT DO NOTHING RETURNING order_id")

# One batch with caps at a time looks at them, and what it sees is what the one before it has committed.
LOCK_CAPS: Final = "SELECT pg_advisory_xact_lock(hashtext('fillwright.caps'))"

# $1 day, $2 whose
USAGE: Final = (
    "SELECT whose, what, sum(amount) AS amount FROM usage WHERE day = $1 AND whose = ANY($2::text[])"
    " GROUP BY whose, what"
)
# What is looked for is never empty where an index says so, which the planner must see.
OPEN_ORDERS: Final = "SELECT count(*) FROM queue"
OPEN_ORDERS_OF_ACCOUNT: Final = "SELECT count(*) FROM queue WHERE account = $1 AND account <> ''"
OPEN_ORDERS_OF_NO_ACCOUNT: Final = "SELECT count(*) FROM queue WHERE account = ''"
OPEN_ORDERS_OF_KEY: Final = "SELECT count(*) FROM queue WHERE key_id = $1 AND key_id <> ''"

# $1 webhook, $2 how many at most, $3 now, $4 end of the lease, $5 of which orders, NULL: of any
CLAIM_DELIVERIES: Final = """
WITH due AS MATERIALIZED (
    SELECT order_id FROM deliveries d
    WHERE webhook_id = $1 AND due_at_ms <= $3::bigint AND dead_at_ms IS NULL
        AND EXISTS (SELECT FROM events e WHERE e.order_id = d.order_id AND e.seq = d.sent + 1)
        AND ($5::text[] IS NULL OR order_id = ANY($5))
    ORDER BY due_at_ms LIMIT $2::bigint FOR UPDATE SKIP LOCKED
)
UPDATE deliveries SET lease = lease + 1, due_at_ms = $4::bigint
WHERE webhook_id = $1 AND order_id IN (SELECT order_id FROM due)
RETURNING webhook_id, order_id, sent, tries, due_at_ms, lease, error, dead_at_ms
"""

# $1 webhook, $2 order, $3 lease
SETTLE_DELIVERY: Final = (
    "UPDATE deliveries SET sent = $4, tries = $5, due_at_ms = $6, error = $7, dead_at_ms = $8"
    " WHERE webhook_id = $1 AND order_id = $2 AND lease = $3"
)
END_DELIVERY: Final = "DELETE FROM deliveries WHERE webhook_id = $1 AND order_id = $2 AND lease = $3"

# $1 webhooks, $2 how many at most
FAILED_DELIVERIES: Final = (
    "SELECT webhook_id, order_id, sent, tries, due_at_ms, lease, error, dead_at_ms FROM deliveries"
    " WHERE webhook_id = ANY($1::text[]) AND error <> '' ORDER BY dead_at_ms NULLS LAST, order_id LIMIT $2"
)

# $1 webhooks, $2 order, NULL: any, $3 now
REVIVE_DELIVERIES: Final = """
WITH chosen AS MATERIALIZED (
    SELECT webhook_id, order_id FROM deliveries
    WHERE webhook_id = ANY($1::text[]) AND dead_at_ms IS NOT NULL AND order_id = coalesce($2::text, order_id)
    LIMIT $4::bigint FOR UPDATE SKIP LOCKED
), revived AS (
    UPDATE deliveries d SET dead_at_ms = NULL, tries = 0, due_at_ms = $3::bigint FROM chosen c
    WHERE d.webhook_id = c.webhook_id AND d.order_id = c.order_id
    RETURNING 1
)
SELECT count(*) FROM revived
"""

# $1 webhooks, $2 since when it was given up, $3 how many at most
DROP_DELIVERIES: Final = """
WITH chosen AS MATERIALIZED (
    SELECT webhook_id, order_id FROM deliveries WHERE webhook_id = ANY($1::text[]) OR dead_at_ms < $2::bigint
    LIMIT $3::bigint FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM deliveries d USING chosen c WHERE d.webhook_id = c.webhook_id AND d.order_id = c.order_id RETURNING 1
)
SELECT count(*) FROM gone
"""

# What is in the way of events that were not appended. $1 order ids, $2 seqs, $3 signatures
OBSTACLES: Final = """
SELECT g.order_id, q.lease, e.at_ms, e.type, e.data,
    (SELECT max(seq) FROM events WHERE order_id = g.order_id) AS last_seq,
    EXISTS (SELECT FROM events WHERE signature = g.signature) AS signature_known
FROM unnest($1::text[], $2::int[], $3::text[]) AS g (order_id, seq, signature)
LEFT JOIN queue q USING (order_id)
LEFT JOIN events e ON e.order_id = g.order_id AND e.seq = g.seq
"""

# $1 worker, $2 now, $3 since when begun orders may be due, $4 since when fresh ones may, $5 how many orders at most,
# $6 how many fresh ones at most, $7 end of the lease, $8 $9 type and data of the first attempt's event,
# $10 the earliest time that counts as the next one for fresh orders. A fresh order is due from the start: its time is
# that of another clock, perhaps, or was noted before ours was set back.
CLAIM: Final = """
WITH resumed AS MATERIALIZED (
    SELECT order_id, leased_by FROM queue WHERE begun AND due_at_ms BETWEEN $3::bigint AND $2::bigint
    ORDER BY due_at_ms LIMIT $5::bigint FOR UPDATE SKIP LOCKED
), expired AS MATERIALIZED (
    SELECT order_id FROM queue WHERE expires_at_ms <= $2 AND NOT begun LIMIT 100 FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT order_id FROM queue
    WHERE NOT begun AND due_at_ms >= $4::bigint AND coalesce(expires_at_ms > $2, true)
    ORDER BY due_at_ms LIMIT (SELECT greatest(0, least($5 - count(*), $6::bigint)) FROM resumed)
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE queue q SET lease = q.lease + 1, leased_by = $1::text, due_at_ms = $7::bigint, begun = true
    FROM (
        SELECT order_id, coalesce(leased_by, '') AS left_by, false AS is_fresh FROM resumed
        UNION ALL SELECT order_id, '', false FROM expired UNION ALL SELECT order_id, '', true FROM fresh
    ) p WHERE q.order_id = p.order_id
    RETURNING q.order_id, q.lease, p.left_by, p.is_fresh
), started AS (
    INSERT INTO events (order_id, seq, at_ms, type, data) SELECT order_id, 2, $2, $8::text, $9::text FROM fresh
), counted AS (
    INSERT INTO starts (at_ms, orders) SELECT $2, count(*) FROM fresh HAVING count(*) > 0
), next AS (
    SELECT least(
        (SELECT min(due_at_ms) FROM queue WHERE begun AND due_at_ms > $2),
        (SELECT min(expires_at_ms) FROM queue WHERE NOT begun AND expires_at_ms > $2)
    ) AS at_ms, (SELECT min(due_at_ms) FROM queue WHERE NOT begun AND due_at_ms >= $10::bigint) AS fresh_at_ms
)
SELECT n.at_ms AS next_at_ms, n.fresh_at_ms, t.order_id, t.lease, t.left_by, t.is_fresh, e.seq, e.at_ms, e.type, e.data
FROM next n LEFT JOIN (taken t JOIN events e USING (order_id)) ON true
ORDER BY t.order_id, e.seq
"""

# One claim at a time looks at the rate limit, and what it sees is what the one before it has committed.
LOCK_STARTS: Final = "SELECT pg_advisory_xact_lock(hashtext('fillwright.starts'))"

# $1 $2 the window
STARTS: Final = (
    "SELECT coalesce(sum(orders), 0)::bigint AS orders, min(at_ms) AS oldest_at_ms"
    " FROM starts WHERE at_ms BETWEEN $1::bigint AND $2::bigint"
)

# $1 since when, $2 until when starts still count
FORGET_STARTS: Final = "DELETE FROM starts WHERE at_ms NOT BETWEEN $1::bigint AND $2::bigint"

# The earliest due times there are: what was due before has gone, and its traces in the index need not be passed again.
FLOORS: Final = """
SELECT (SELECT min(due_at_ms) FROM queue WHERE begun) AS begun_at_ms,
    (SELECT min(due_at_ms) FROM queue WHERE NOT begun) AS fresh_at_ms
"""

# $1 order ids, $2 leases, $3 due time, $4 whether they are given back. A row that is locked is being taken or settled.
MOVE_LEASES: Final = """
WITH held AS MATERIALIZED (
    SELECT q.order_id FROM queue q
    JOIN unnest($1::text[], $2::int[]) AS g (order_id, lease) ON g.order_id = q.order_id AND g.lease = q.lease
    WHERE q.leased_by IS NOT NULL FOR UPDATE OF q SKIP LOCKED
)
UPDATE queue q SET due_at_ms = $3::bigint, leased_by = CASE WHEN $4::boolean THEN NULL ELSE leased_by END
FROM held WHERE q.order_id = held.order_id
"""

# $1 order ids, $2 the seq of each behind which to begin
HISTORY: Final = """
SELECT e.order_id, e.seq, e.at_ms, e.type, e.data
FROM unnest($1::text[], $2::int[]) AS g (order_id, after) JOIN events e ON e.order_id = g.order_id AND e.seq > g.after
ORDER BY e.order_id, e.seq
"""

LOGS: Final = (
    "SELECT order_id, seq, at_ms, type, data FROM events WHERE order_id = ANY($1::text[]) ORDER BY order_id, seq"
)

# $1 since when, $2 how many at most
CHANGED: Final = "SELECT DISTINCT order_id FROM events WHERE at_ms >= $1::bigint LIMIT $2::bigint"

COUNT_EVENTS: Final = "SELECT count(*) FROM events WHERE at_ms >= $1::bigint AND at_ms < $2::bigint"

# $1 now, $2 whether the rate limit is used up
COUNTS: Final = """
SELECT count(*) FILTER (WHERE due_at_ms > $1::bigint AND leased_by IS NOT NULL) AS active,
    count(*) FILTER (WHERE (begun AND due_at_ms > $1 AND leased_by IS NULL) OR ($2::boolean AND NOT begun)) AS delayed,
    count(*) AS open,
    min(due_at_ms) FILTER (WHERE due_at_ms <= $1 AND (begun OR NOT $2)) AS oldest_due_ms
FROM queue
"""

TALLY: Final = "SELECT status, sum(orders)::bigint AS orders FROM tally GROUP BY status"

PIN: Final = "INSERT INTO pins (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING"
PINNED: Final = "SELECT value FROM pins WHERE name = $1"

# $1 digest, $2 key, $3 until when, $4 now
ADD_TICKET: Final = (
    "WITH gone AS (DELETE FROM tickets WHERE expires_at_ms <= $4::bigint)"
    " INSERT INTO tickets (digest, key_id, expires_at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
)
TAKE_TICKET: Final = "DELETE FROM tickets WHERE digest = $1 RETURNING key_id, expires_at_ms"

# An entry whose predecessor is not there, or whose place is taken, is not written.
ADD_AUDIT: Final = """
INSERT INTO audit (seq, at_ms, actor, type, data, hash) SELECT $1::bigint, $2, $3, $4, $5, $6
WHERE $1 = 1 OR EXISTS (SELECT FROM audit WHERE seq = $1 - 1) ON CONFLICT DO NOTHING
"""
MODE: Final = "SELECT current_mode()"
AUDIT_HASH: Final = "SELECT hash FROM audit WHERE seq = $1"
AUDIT_LOG: Final = "SELECT seq, at_ms, actor, type, data, hash FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2"

IDS_AFTER: Final = "SELECT id FROM orders WHERE id > $1 ORDER BY id LIMIT $2"
