-- What operators did: keys and modes. Only ever inserted; each row's hash covers the row before it.
CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,
    at_ms  INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    type   TEXT    NOT NULL,
    data   TEXT    NOT NULL,
    hash   TEXT    NOT NULL
);

CREATE INDEX audit_modes ON audit (seq) WHERE type = 'ModeSet';

-- What lets a browser open one stream: it cannot send a key. By its digest; taken once, or gone when it expires.
CREATE TABLE tickets (
    digest        TEXT PRIMARY KEY,
    key_id        TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL
);
