-- Event triggers on DDL: they keep every table's replica identity right, refuse what cannot be replicated, and write what
-- DDL ran into steeldb.ddl_command. They run as the agent's superuser (SECURITY DEFINER), so session_user tells whose
-- command it is: a client cannot change it. Superusers' own DDL is neither refused nor recorded.
--
-- An ALTER TABLE made in a trigger fires the triggers again. It is made only where the identity is not right yet, so that
-- ends by itself after one round.

CREATE FUNCTION steeldb.by_client() RETURNS bool
LANGUAGE sql STABLE
RETURN (SELECT NOT r.rolsuper FROM pg_roles r WHERE r.rolname = session_user);

-- Whether a row of the table could have a value stored out of line, so that an update would not send it. Judged by the
-- declared columns, not by whether there is a TOAST table, which depends on columns dropped long ago: after a
-- restore replicas would disagree. Never says no where PostgreSQL would make one: sizes are rounded up.
CREATE FUNCTION steeldb.may_toast(relation oid) RETURNS bool
LANGUAGE sql STABLE
RETURN (
    SELECT coalesce(
        bool_or(a.attlen = -1 AND a.attstorage <> 'p')
        AND 24 + 8 + count(*) / 8 + sum(8 + CASE
            WHEN a.attlen > 0 THEN a.attlen
            WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4 THEN (a.atttypmod - 4) * 4 + 4
            WHEN a.atttypid IN ('bit'::regtype, 'varbit'::regtype) AND a.atttypmod > 0 THEN a.atttypmod / 8 + 12
            WHEN a.atttypid = 'numeric'::regtype AND a.atttypmod > 4 THEN (((a.atttypmod - 4) >> 16) & 65535) + 16
            ELSE 1000000
        END) > 2000, false)
    FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
) OR EXISTS (
    -- With a target of its own a table's rows go out of line sooner.
    SELECT FROM pg_class c, unnest(c.reloptions) AS o (setting)
    WHERE c.oid = relation AND o.setting LIKE 'toast\_tuple\_target=%'
);

-- Gives a table the replica identity it must have: all columns where it has no usable primary key or may be TOASTed
-- (B13, G2), else its key.
CREATE FUNCTION steeldb.fix_replica_identity(relation oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    class pg_class;
    wanted "char";
BEGIN
    SELECT * INTO class FROM pg_class c
    WHERE c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND steeldb.is_user_schema(c.relnamespace);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF steeldb.may_toast(relation) OR NOT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = relation AND i.indisprimary AND i.indisvalid AND i.indimmediate)
    THEN
        wanted := 'f';
    ELSE
        wanted := 'd';
    END IF;
    IF class.relreplident <> wanted THEN
        EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', steeldb.relation_name(relation),
            CASE wanted WHEN 'f' THEN 'FULL' ELSE 'DEFAULT' END);
    END IF;
END
$$;

-- All tables at once, for what existed before these triggers and for drops that cascade.
CREATE FUNCTION steeldb.fix_replica_identities() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM steeldb.fix_replica_identity(c.oid)
    FROM (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p') ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C") AS c;
END
$$;

CREATE FUNCTION steeldb.refuse(what text, hint text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% cannot be replicated', what USING ERRCODE = '0A000', HINT = hint;
END
$$;

CREATE FUNCTION steeldb.on_ddl_start() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF steeldb.by_client() THEN
        PERFORM steeldb.refuse(tg_tag, 'The agents of SteelDB manage what a replica publishes, watches and connects to.');
    END IF;
END
$$;

CREATE FUNCTION steeldb.on_ddl_end() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    command record;
    client bool := steeldb.by_client();
    class pg_class;
    member oid;
BEGIN
    FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        IF client AND NOT command.in_extension THEN
            IF command.schema_name = 'pg_temp' THEN
                PERFORM steeldb.refuse('a temporary object', 'Use an ordinary table and delete its rows.');
            END IF;
            IF command.command_tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') AND NOT EXISTS (
                SELECT FROM steeldb.allowed_extension e WHERE quote_ident(e.name) = command.object_identity)
            THEN
                PERFORM steeldb.refuse(format('extension %s', command.object_identity),
                    'Extensions that are known to do the same on every replica are listed in steeldb.allowed_extension.');
            END IF;
            INSERT INTO steeldb.ddl_command
            VALUES ('end', command.command_tag, command.object_type, command.schema_name, command.object_identity);
        END IF;
        CONTINUE WHEN command.classid IS DISTINCT FROM 'pg_class'::regclass::oid;
        SELECT * INTO class FROM pg_class c WHERE c.oid = command.objid;
        CONTINUE WHEN NOT FOUND;
        IF client AND class.relpersistence = 'u' THEN
            PERFORM steeldb.refuse('an UNLOGGED relation', 'It would be empty after a crash of one replica; leave UNLOGGED out.');
        END IF;
        IF client AND (
            EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = class.oid AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R'))
            OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = class.oid AND r.ev_enabled IN ('A', 'R')))
        THEN
            PERFORM steeldb.refuse('a trigger or rule that is ENABLE ALWAYS or ENABLE REPLICA',
                'It would fire again where a replica catches up; use plain ENABLE.');
        END IF;
        IF class.relkind IN ('r', 'p') THEN
            -- An ALTER of a parent reaches its children without naming them.
            FOR member IN
                WITH RECURSIVE family (oid) AS (
                    SELECT class.oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN family f ON i.inhparent = f.oid)
                SELECT f.oid FROM family f
                JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
                ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
            LOOP
                PERFORM steeldb.fix_replica_identity(member);
            END LOOP;
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION steeldb.on_sql_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF steeldb.by_client() THEN
        INSERT INTO steeldb.ddl_command
        SELECT 'drop', tg_tag, d.object_type, d.schema_name, d.object_identity
        FROM pg_event_trigger_dropped_objects() d
        WHERE NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'pg_toast'
          AND (d.original OR d.object_type IN ('table', 'view', 'materialized view', 'sequence', 'function', 'table column'))
        ORDER BY d.object_type COLLATE "C", d.object_identity COLLATE "C";
    END IF;
    -- A key can go with a type or a column that a cascade took; the command's own objects do not name its table then.
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
               WHERE NOT d.original AND d.object_type IN ('table constraint', 'table column', 'index'))
    THEN
        PERFORM steeldb.fix_replica_identities();
    END IF;
END
$$;

CREATE FUNCTION steeldb.on_table_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF steeldb.by_client() THEN
        INSERT INTO steeldb.ddl_command
        SELECT 'rewrite', tg_tag, 'table', n.nspname, steeldb.relation_name(c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = pg_event_trigger_table_rewrite_oid();
    END IF;
END
$$;

CREATE EVENT TRIGGER steeldb_ddl_start ON ddl_command_start
    WHEN TAG IN ('CREATE PUBLICATION', 'ALTER PUBLICATION', 'DROP PUBLICATION',
                 'CREATE SUBSCRIPTION', 'ALTER SUBSCRIPTION', 'DROP SUBSCRIPTION',
                 'CREATE FOREIGN DATA WRAPPER', 'ALTER FOREIGN DATA WRAPPER', 'CREATE SERVER', 'ALTER SERVER',
                 'CREATE USER MAPPING', 'ALTER USER MAPPING', 'CREATE FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA',
                 'CREATE LANGUAGE', 'ALTER LANGUAGE', 'CREATE ACCESS METHOD')
    EXECUTE FUNCTION steeldb.on_ddl_start();
CREATE EVENT TRIGGER steeldb_ddl_end ON ddl_command_end EXECUTE FUNCTION steeldb.on_ddl_end();
CREATE EVENT TRIGGER steeldb_sql_drop ON sql_drop EXECUTE FUNCTION steeldb.on_sql_drop();
CREATE EVENT TRIGGER steeldb_table_rewrite ON table_rewrite EXECUTE FUNCTION steeldb.on_table_rewrite();

-- Helpers are for the triggers, which run as their owner; clients need none of them.
REVOKE EXECUTE ON FUNCTION steeldb.fix_replica_identity(oid), steeldb.fix_replica_identities(), steeldb.refuse(text, text)
    FROM PUBLIC;
