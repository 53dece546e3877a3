-- Who did what: keys, limits, mode, cancels. Only ever inserted; each row's hash covers the row before it.
CREATE TABLE audit (
    seq    bigint PRIMARY KEY,
    at_ms  bigint NOT NULL,
    actor  text   NOT NULL,
    type   text   NOT NULL,
    data   text   NOT NULL,
    hash   text   NOT NULL
);

CREATE INDEX audit_modes ON audit (seq) WHERE type = 'ModeSet';

-- What lets a browser open one stream: it cannot send a key. By its digest; taken once, or gone when it expires.
CREATE TABLE tickets (
    digest        text PRIMARY KEY,
    key_id        text NOT NULL,
    expires_at_ms bigint NOT NULL
);
