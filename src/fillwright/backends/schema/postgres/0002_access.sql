-- What operators did: keys and modes. Only ever inserted; each row's hash covers the row before it.
CREATE TABLE audit (
    seq    bigint PRIMARY KEY,
    at_ms  bigint NOT NULL,
    actor  text   NOT NULL,
    type   text   NOT NULL,
    data   text   NOT NULL,
    hash   text   NOT NULL
);

CREATE INDEX audit_modes ON audit (seq) WHERE type = 'ModeSet';

-- What is in force: the last word on it.
CREATE FUNCTION current_mode() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT coalesce((SELECT split_part(data, '"', 4) FROM fillwright.audit
        WHERE type = 'ModeSet' ORDER BY seq DESC LIMIT 1), 'active')
$$;

-- While the engine is halted, no signature is written, whichever version writes it: what is not recorded is never sent.
-- This looks at the moment of the insert; a condition in the statement would see what was in force when it began to wait.
CREATE FUNCTION refuse_signatures_while_halted() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF fillwright.current_mode() = 'halted' THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER events_signed BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.signature IS NOT NULL)
    EXECUTE FUNCTION refuse_signatures_while_halted();

-- What lets a browser open one stream: it cannot send a key. By its digest; taken once, or gone when it expires.
CREATE TABLE tickets (
    digest        text PRIMARY KEY,
    key_id        text NOT NULL,
    expires_at_ms bigint NOT NULL
);
