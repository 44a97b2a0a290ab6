-- Temporary relations. PREPARE TRANSACTION refuses a transaction that has touched one of PostgreSQL's, so they are ordinary
-- relations in a schema of their session, steeldb_temp_ and twenty digits, which the agent puts before everything else in
-- the session's search_path: there it hides what is permanent, as pg_temp does. The proxy writes CREATE TEMPORARY TABLE t as
-- CREATE TABLE steeldb_temp_....t, after a call of steeldb.temporary.

CREATE FUNCTION steeldb.is_temporary(schema name) RETURNS bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN schema ~ '^steeldb_temp_[0-9a-f]{20}$';

-- As pg_catalog's, which knows PostgreSQL's own temporary schemas alone.
CREATE FUNCTION steeldb."current_schema"() RETURNS name
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT s.name FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, place)
        WHERE NOT steeldb.is_temporary(s.name) ORDER BY s.place LIMIT 1);

-- What becomes of temporary tables at the end of a transaction, where it is not ON COMMIT PRESERVE ROWS.
CREATE TABLE steeldb.temporary_table (
    schema_name name NOT NULL,
    table_name name NOT NULL,
    on_commit text NOT NULL CHECK (on_commit IN ('delete', 'drop')),
    PRIMARY KEY (schema_name, table_name)
);
COMMENT ON TABLE steeldb.temporary_table IS 'ON COMMIT of temporary tables; written by event triggers alone.';
REVOKE ALL ON steeldb.temporary_table FROM PUBLIC;

-- The next relation that this session creates is a temporary one, in its schema, which is made if it is not there yet. Whose
-- schema it may be, the agent checks when the transaction is complete (steeldb.ddl_effects).
CREATE PROCEDURE steeldb.temporary(schema text, on_commit text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner name;
BEGIN
    IF NOT steeldb.is_temporary(schema::name) THEN
        RAISE EXCEPTION '"%" is no schema of temporary relations', schema USING ERRCODE = '42501';
    END IF;
    SELECT pg_get_userbyid(n.nspowner) INTO owner FROM pg_namespace n WHERE n.nspname = schema::name;
    IF owner IS NULL THEN
        EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', schema, session_user);
    ELSIF owner <> session_user THEN
        RAISE EXCEPTION 'schema "%" holds the temporary relations of another role', schema USING ERRCODE = '42501';
    END IF;
    PERFORM set_config('steeldb.creating', on_commit, true);
END
$$;

-- DISCARD TEMP, with the caller's rights.
CREATE PROCEDURE steeldb.discard_temporary(schema text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
BEGIN
    IF steeldb.is_temporary(schema::name) THEN
        EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', schema);
    END IF;
END
$$;

-- CREATE without a schema's name goes to the first schema of the path, and that must not be the temporary one: it goes
-- behind the next for the time of the command. Not for a temporary relation, whose own definition may name others.
CREATE FUNCTION steeldb.on_create_start() RETURNS event_trigger
LANGUAGE plpgsql
AS $$
DECLARE
    path pg_catalog.name[] := pg_catalog.current_schemas(false);
    text_of_path pg_catalog.text := '';
BEGIN
    IF NOT steeldb.is_temporary(path[1])
        OR pg_catalog.length(pg_catalog.current_setting('steeldb.creating', true)) OPERATOR(pg_catalog.>) 0
    THEN
        RETURN;
    END IF;
    FOR i IN 2 .. pg_catalog.cardinality(path) LOOP
        text_of_path := pg_catalog.concat(text_of_path, CASE WHEN i OPERATOR(pg_catalog.>) 2 THEN ', ' END,
            pg_catalog.quote_ident(path[i]),
            CASE WHEN i OPERATOR(pg_catalog.=) 2 THEN pg_catalog.concat(', ', pg_catalog.quote_ident(path[1])) END);
    END LOOP;
    PERFORM pg_catalog.set_config('steeldb.path', pg_catalog.current_setting('search_path'), true);
    PERFORM pg_catalog.set_config('search_path', text_of_path, true);
END
$$;

CREATE FUNCTION steeldb.on_create_end() RETURNS event_trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_catalog.length(pg_catalog.current_setting('steeldb.path', true)) OPERATOR(pg_catalog.>) 0 THEN
        PERFORM pg_catalog.set_config('search_path', pg_catalog.current_setting('steeldb.path'), true);
        PERFORM pg_catalog.set_config('steeldb.path', '', true);
    END IF;
    IF pg_catalog.length(pg_catalog.current_setting('steeldb.creating', true)) OPERATOR(pg_catalog.>) 0 THEN
        PERFORM pg_catalog.set_config('steeldb.creating', '', true);
    END IF;
END
$$;

-- Event triggers fire by their names: the second one behind those that look at what was created.
CREATE EVENT TRIGGER steeldb_path_start ON ddl_command_start
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE VIEW', 'CREATE MATERIALIZED VIEW', 'CREATE SEQUENCE',
                 'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'CREATE TYPE', 'CREATE DOMAIN', 'CREATE OPERATOR',
                 'CREATE OPERATOR CLASS', 'CREATE OPERATOR FAMILY', 'CREATE COLLATION', 'CREATE CONVERSION', 'CREATE STATISTICS',
                 'CREATE TEXT SEARCH CONFIGURATION', 'CREATE TEXT SEARCH DICTIONARY', 'CREATE EXTENSION')
    EXECUTE FUNCTION steeldb.on_create_start();
CREATE EVENT TRIGGER steeldb_path_end ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE VIEW', 'CREATE MATERIALIZED VIEW', 'CREATE SEQUENCE',
                 'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'CREATE TYPE', 'CREATE DOMAIN', 'CREATE OPERATOR',
                 'CREATE OPERATOR CLASS', 'CREATE OPERATOR FAMILY', 'CREATE COLLATION', 'CREATE CONVERSION', 'CREATE STATISTICS',
                 'CREATE TEXT SEARCH CONFIGURATION', 'CREATE TEXT SEARCH DICTIONARY', 'CREATE EXTENSION')
    EXECUTE FUNCTION steeldb.on_create_end();

-- PostgreSQL's own temporary relations, as dynamic SQL may ask for them: with the right to make them, who tries is told by
-- the event trigger what to do instead.
DO $$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database());
END
$$;

-- What has to end with its session can carry nothing that stays.
CREATE FUNCTION steeldb.check_temporary(classid oid, objid oid, temporary bool, object_type text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF temporary AND classid NOT IN ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_trigger'::regclass,
        'pg_constraint'::regclass, 'pg_rewrite'::regclass, 'pg_statistic_ext'::regclass, 'pg_policy'::regclass,
        'pg_attrdef'::regclass)
        OR temporary AND EXISTS (SELECT FROM pg_class c WHERE c.oid = objid AND c.relkind NOT IN ('r', 'p', 'v', 'S', 'i', 'I')
                                 AND classid = 'pg_class'::regclass)
    THEN
        PERFORM steeldb.refuse(format('a temporary %s', object_type), 'Temporary are tables, sequences and views alone.');
    END IF;
    IF classid = 'pg_class'::regclass THEN
        IF EXISTS (
            SELECT FROM pg_inherits i
            JOIN pg_class a ON a.oid = i.inhrelid JOIN pg_namespace an ON an.oid = a.relnamespace
            JOIN pg_class b ON b.oid = i.inhparent JOIN pg_namespace bn ON bn.oid = b.relnamespace
            WHERE objid IN (i.inhrelid, i.inhparent)
              AND steeldb.is_temporary(an.nspname) <> steeldb.is_temporary(bn.nspname))
        THEN
            PERFORM steeldb.refuse('inheritance or partitioning between temporary and permanent relations',
                'Make all of them temporary, or none.');
        END IF;
        IF EXISTS (
            SELECT FROM pg_constraint k
            JOIN pg_class a ON a.oid = k.conrelid JOIN pg_namespace an ON an.oid = a.relnamespace
            JOIN pg_class b ON b.oid = k.confrelid JOIN pg_namespace bn ON bn.oid = b.relnamespace
            WHERE k.contype = 'f' AND objid IN (k.conrelid, k.confrelid)
              AND steeldb.is_temporary(an.nspname) <> steeldb.is_temporary(bn.nspname))
        THEN
            RAISE EXCEPTION 'constraints on % tables may reference only % tables',
                CASE WHEN temporary THEN 'temporary' ELSE 'permanent' END,
                CASE WHEN temporary THEN 'temporary' ELSE 'permanent' END
                USING ERRCODE = '42P16';
        END IF;
    END IF;
    IF NOT temporary AND EXISTS (
        SELECT FROM pg_namespace n
        JOIN pg_class t ON t.relnamespace = n.oid
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
            OR d.refclassid = 'pg_type'::regclass AND d.refobjid = t.reltype
        WHERE steeldb.is_temporary(n.nspname) AND (
            d.classid = check_temporary.classid AND d.objid = check_temporary.objid
            OR d.classid = 'pg_rewrite'::regclass
                AND d.objid IN (SELECT r.oid FROM pg_rewrite r WHERE r.ev_class = check_temporary.objid)
            OR d.classid = 'pg_attrdef'::regclass
                AND d.objid IN (SELECT a.oid FROM pg_attrdef a WHERE a.adrelid = check_temporary.objid)))
    THEN
        PERFORM steeldb.refuse('a permanent object that uses a temporary one',
            'Make it temporary as well: CREATE TEMPORARY VIEW, CREATE TEMPORARY TABLE.');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION steeldb.on_ddl_end() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    command record;
    client bool := steeldb.by_client();
    class pg_class;
    member oid;
    schema name;
    temporary bool;
    on_commit text := current_setting('steeldb.creating', true);
BEGIN
    FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        -- What hangs on a table is in no schema by its own name.
        schema := CASE
            WHEN command.object_type = 'schema' THEN command.object_identity::name
            WHEN command.schema_name IS NULL THEN (
                SELECT n.nspname
                FROM (SELECT t.tgrelid FROM pg_trigger t WHERE command.classid = 'pg_trigger'::regclass AND t.oid = command.objid
                      UNION SELECT r.ev_class FROM pg_rewrite r WHERE command.classid = 'pg_rewrite'::regclass AND r.oid = command.objid
                      UNION SELECT p.polrelid FROM pg_policy p WHERE command.classid = 'pg_policy'::regclass AND p.oid = command.objid
                     ) AS owner (relation)
                JOIN pg_class c ON c.oid = owner.relation JOIN pg_namespace n ON n.oid = c.relnamespace)
            ELSE command.schema_name::name
        END;
        temporary := coalesce(steeldb.is_temporary(schema), false);
        IF client AND NOT command.in_extension THEN
            IF command.schema_name = 'pg_temp' THEN
                PERFORM steeldb.refuse('a temporary object', 'Functions and DO blocks cannot make one: create it by a statement of its own, before they are called.');
            END IF;
            IF command.command_tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') AND NOT EXISTS (
                SELECT FROM steeldb.allowed_extension e WHERE quote_ident(e.name) = command.object_identity)
            THEN
                PERFORM steeldb.refuse(format('extension %s', command.object_identity),
                    'Extensions that are known to do the same on every replica are listed in steeldb.allowed_extension.');
            END IF;
            PERFORM steeldb.check_temporary(command.classid, command.objid, temporary, command.object_type);
            INSERT INTO steeldb.ddl_command
            VALUES ('end', command.command_tag, command.object_type, CASE WHEN temporary THEN schema ELSE command.schema_name END,
                    command.object_identity);
        END IF;
        CONTINUE WHEN command.classid IS DISTINCT FROM 'pg_class'::regclass::oid;
        SELECT * INTO class FROM pg_class c WHERE c.oid = command.objid;
        CONTINUE WHEN NOT FOUND;
        IF temporary AND class.relkind IN ('r', 'p') AND on_commit IN ('delete', 'drop')
            AND command.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
        THEN
            INSERT INTO steeldb.temporary_table VALUES (schema, class.relname, on_commit)
            ON CONFLICT (schema_name, table_name) DO UPDATE SET on_commit = excluded.on_commit;
        END IF;
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

CREATE OR REPLACE FUNCTION steeldb.on_sql_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF steeldb.by_client() THEN
        INSERT INTO steeldb.ddl_command
        SELECT 'drop', tg_tag, d.object_type,
               CASE WHEN d.object_type = 'schema' AND steeldb.is_temporary(d.object_name::name) THEN d.object_name
                    ELSE d.schema_name END,
               d.object_identity
        FROM pg_event_trigger_dropped_objects() d
        WHERE NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'pg_toast'
          AND (d.original OR d.object_type IN ('table', 'view', 'materialized view', 'sequence', 'function', 'table column'))
        ORDER BY d.object_type COLLATE "C", d.object_identity COLLATE "C";
    END IF;
    DELETE FROM steeldb.temporary_table t USING pg_event_trigger_dropped_objects() d
    WHERE d.object_type = 'table' AND t.schema_name = d.schema_name AND t.table_name = d.object_name;
    -- A key can go with a type or a column that a cascade took; the command's own objects do not name its table then.
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
               WHERE NOT d.original AND d.object_type IN ('table constraint', 'table column', 'index')
                 AND NOT coalesce(steeldb.is_temporary(d.schema_name::name), false))
    THEN
        PERFORM steeldb.fix_replica_identities();
    END IF;
END
$$;

-- The catalogs' digest is of what is permanent: temporary definitions raise no wall, so they change beside those that do.
DO $$
DECLARE
    before text := pg_get_functiondef('steeldb.catalog_lines'::regproc);
    after text := replace(before, 'WHERE steeldb.is_user_schema(oid)',
        'WHERE steeldb.is_user_schema(oid) AND NOT steeldb.is_temporary(nspname)');
BEGIN
    IF after = before THEN
        RAISE EXCEPTION 'steeldb.catalog_lines is not what it was';
    END IF;
    EXECUTE after;
END
$$;

-- As before, and for a transaction that defined temporary relations of its own session alone, no digest: it need not run
-- alone, and what it defined is in no catalog that others see. own: the session's schema.
DROP FUNCTION steeldb.ddl_effects();
CREATE FUNCTION steeldb.ddl_effects(own text) RETURNS bytea
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY'
SET intervalstyle = postgres
SET timezone = 'UTC'
SET extra_float_digits = 1
SET bytea_output = hex
SET lc_monetary = 'C'
AS $$
DECLARE
    effects bytea;
    relation record;
    contents bytea;
BEGIN
    IF NOT EXISTS (SELECT FROM steeldb.ddl_command) THEN
        RETURN NULL;
    END IF;
    -- A cascade may take others' views along.
    IF EXISTS (SELECT FROM steeldb.ddl_command d
               WHERE d.phase = 'end' AND steeldb.is_temporary(d.schema_name::name) AND d.schema_name <> own)
    THEN
        RAISE EXCEPTION 'temporary relations of another session' USING ERRCODE = '42501';
    END IF;
    IF NOT EXISTS (SELECT FROM steeldb.ddl_command d WHERE steeldb.is_temporary(d.schema_name::name) IS NOT TRUE) THEN
        RETURN '\x';
    END IF;
    effects := steeldb.catalog_digest();
    FOR relation IN
        SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND EXISTS (
            SELECT FROM steeldb.ddl_command d
            WHERE d.object_identity = steeldb.relation_name(c.oid)
              AND (d.phase = 'rewrite' OR d.phase = 'end' AND c.relkind = 'm' AND c.relispopulated))
        ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
    LOOP
        EXECUTE format(
            'SELECT sha256(coalesce(string_agg(r.h, '''' ORDER BY r.h), '''')) FROM (SELECT sha256(convert_to(ROW(%s)::text, ''UTF8'')) AS h FROM ONLY %I.%I) AS r',
            (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname COLLATE "C")
             FROM pg_attribute a WHERE a.attrelid = relation.oid AND a.attnum > 0 AND NOT a.attisdropped),
            relation.nspname, relation.relname)
        INTO contents;
        effects := sha256(effects || convert_to(format('%I.%I', relation.nspname, relation.relname), 'UTF8') || '\x00' || contents);
    END LOOP;
    RETURN effects;
END
$$;

-- ON COMMIT, called by the agent before a transaction is prepared. A table without rows is left alone, so that a transaction
-- that only reads stays one.
CREATE FUNCTION steeldb.end_temporary(own text) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item record;
    has_rows bool;
    emptied text[];
BEGIN
    FOR item IN
        SELECT t.on_commit, format('%I.%I', t.schema_name, t.table_name) AS name
        FROM steeldb.temporary_table t
        WHERE t.schema_name = own AND to_regclass(format('%I.%I', t.schema_name, t.table_name)) IS NOT NULL
        ORDER BY t.table_name COLLATE "C"
    LOOP
        IF item.on_commit = 'drop' THEN
            EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', item.name);
        ELSE
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', item.name) INTO has_rows;
            IF has_rows THEN
                emptied := emptied || item.name;
            END IF;
        END IF;
    END LOOP;
    IF emptied IS NOT NULL THEN
        EXECUTE format('TRUNCATE %s', array_to_string(emptied, ', '));
    END IF;
END
$$;

-- The session is over: called by the agent at that place in the order.
CREATE FUNCTION steeldb.clear_temporary(schema text) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT steeldb.is_temporary(schema::name) THEN
        RAISE EXCEPTION '"%" is no schema of temporary relations', schema;
    END IF;
    EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', schema);
    DELETE FROM steeldb.temporary_table t WHERE t.schema_name = schema;
END
$$;
REVOKE EXECUTE ON FUNCTION steeldb.check_temporary(oid, oid, bool, text), steeldb.clear_temporary(text) FROM PUBLIC;
