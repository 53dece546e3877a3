-- Who did what: keys, limits, mode, cancels. Only ever inserted; each row's hash covers the row before it.
CREATE TABLE audit (
    seq    bigint PRIMARY KEY,
    at_ms  bigint NOT NULL,
    actor  text   NOT NULL,
    type   text   NOT NULL,
    data   text   NOT NULL,
    hash   text   NOT NULL
);
