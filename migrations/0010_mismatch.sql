-- What replicas disagreed on, by role and statement. A replica's own view of it is its own: which statements it saw differ
-- depends on who it is. So the rows are written through the order, by the proxy whose client was told of a mismatch, in a
-- transaction of its own: they are the same everywhere and can be queried like any other.
CREATE TABLE steeldb.disagreement (
    role name NOT NULL,
    kind text NOT NULL CHECK (kind IN ('result', 'effects')),
    digest bytea NOT NULL,
    statement text NOT NULL,
    times int8 NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (role, kind, digest)
);
ALTER TABLE steeldb.disagreement REPLICA IDENTITY FULL;
REVOKE ALL ON steeldb.disagreement FROM PUBLIC;

-- Texts of statements may hold secrets: a role sees its own.
CREATE VIEW steeldb.mismatch WITH (security_barrier) AS
    SELECT current_database() AS database, role, kind, statement, times, first_at, last_at
    FROM steeldb.disagreement
    WHERE role = session_user OR (SELECT rolsuper FROM pg_roles WHERE rolname = session_user);
GRANT SELECT ON steeldb.mismatch TO PUBLIC;

-- A role can write only of itself, and only so much: of 1000 statements the one that was longest not seen goes.
CREATE FUNCTION steeldb.note_mismatch(kind text, statement text) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog
AS $$
DECLARE
    shown text := left(statement, 2000);
    of_text bytea := sha256(convert_to(left(statement, 2000), 'UTF8'));
BEGIN
    UPDATE steeldb.disagreement AS d SET times = d.times + 1, last_at = steeldb.now()
    WHERE d.role = session_user AND d.kind = note_mismatch.kind AND d.digest = of_text;
    IF FOUND THEN
        RETURN;
    END IF;
    IF (SELECT count(*) FROM steeldb.disagreement AS d WHERE d.role = session_user) >= 1000 THEN
        DELETE FROM steeldb.disagreement AS d WHERE (d.role, d.kind, d.digest) = (
            SELECT e.role, e.kind, e.digest FROM steeldb.disagreement AS e WHERE e.role = session_user
            ORDER BY e.last_at, e.kind, e.digest LIMIT 1);
    END IF;
    INSERT INTO steeldb.disagreement
    VALUES (session_user, note_mismatch.kind, of_text, shown, 1, steeldb.now(), steeldb.now());
END
$$;
