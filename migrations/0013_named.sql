-- What a transaction's definitions are about, by name (rule 9): what is older and touches none of it goes on behind them.
-- steeldb.ddl_reach answers for definitions of which that is known; of all others it knows nothing, and they end everything
-- that is older. The names are this replica's own affair: they are in no vote. The notes that they are made from are in w, so
-- they name things by names.
--
-- 'reach': relation object_identity of schema schema_name has lost something that hangs on it, or is gone.
-- 'wide': it is not known what the command is about.
ALTER TABLE steeldb.ddl_command DROP CONSTRAINT ddl_command_phase_check;
ALTER TABLE steeldb.ddl_command ADD CONSTRAINT ddl_command_phase_check
    CHECK (phase IN ('end', 'drop', 'rewrite', 'reach', 'wide'));

-- Whether a command is run by a function or a block of a client: then the client's statement does not tell what it is. `stack`:
-- PG_CONTEXT in the event trigger.
CREATE FUNCTION steeldb.is_nested(stack text) RETURNS bool
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM regexp_split_to_table(stack, E'\n') AS l (line)
    WHERE l.line ~ '^(PL/pgSQL|SQL) function ' AND l.line !~ '^PL/pgSQL function steeldb\.');

-- The table of a trigger that reports an identity column's values, by the trigger's own name.
CREATE FUNCTION steeldb.identity_of(trigger_identity text) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN substring(trigger_identity, '^"!steeldb_identity_[0-9a-f]{16}" on (.*)$');

CREATE FUNCTION steeldb.note_reach_end() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stack text;
BEGIN
    IF NOT steeldb.by_client() THEN
        RETURN;
    END IF;
    GET DIAGNOSTICS stack = PG_CONTEXT;
    -- Names and parents of before are not told of.
    INSERT INTO steeldb.ddl_command
    SELECT DISTINCT 'wide', c.command_tag, c.object_type, c.schema_name, NULL
    FROM pg_event_trigger_ddl_commands() c
    WHERE c.object_type IN ('table', 'index', 'sequence', 'view')
      AND NOT coalesce(steeldb.is_temporary(c.schema_name::name), false)
      AND (steeldb.is_nested(stack)
           OR c.command_tag LIKE 'ALTER %' AND current_query() ~* '\m(rename|inherit|attach|detach|schema)\M');
END
$$;

CREATE FUNCTION steeldb.note_reach_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stack text;
BEGIN
    IF NOT steeldb.by_client() THEN
        RETURN;
    END IF;
    GET DIAGNOSTICS stack = PG_CONTEXT;
    INSERT INTO steeldb.ddl_command
    SELECT DISTINCT o.phase, tg_tag, CASE WHEN o.phase = 'wide' THEN o.object_type ELSE 'relation' END, o.schema, o.name
    FROM (
        SELECT d.object_type,
               CASE WHEN d.object_type = 'type' THEN d.schema_name ELSE d.address_names[1] END AS schema,
               CASE WHEN d.object_type = 'type' THEN d.object_name ELSE d.address_names[2] END AS name
        FROM pg_event_trigger_dropped_objects() d
        WHERE NOT d.is_temporary AND NOT coalesce(steeldb.is_temporary(d.schema_name::name), false)
    ) AS d (object_type, schema, name),
    LATERAL (SELECT
        d.object_type, d.schema, d.name,
        -- An index that is dropped by itself does not tell of which table it was.
        CASE WHEN d.object_type IN ('table', 'view', 'materialized view', 'sequence', 'index', 'type', 'table column',
                                    'table constraint', 'default value', 'trigger', 'rule', 'policy')
                  AND d.schema IS NOT NULL AND d.name IS NOT NULL AND NOT steeldb.is_nested(stack)
             THEN 'reach' ELSE 'wide' END AS phase) AS o
    WHERE NOT coalesce(steeldb.is_temporary(o.schema::name), false)
      AND o.schema IS DISTINCT FROM 'pg_toast' AND d.object_type NOT IN ('toast table', 'statistics object');
END
$$;

CREATE EVENT TRIGGER steeldb_reach_drop ON sql_drop EXECUTE FUNCTION steeldb.note_reach_drop();
CREATE EVENT TRIGGER steeldb_reach_end ON ddl_command_end EXECUTE FUNCTION steeldb.note_reach_end();

-- What the current transaction's definitions may be reached by: names of relations, types and functions, without schemas,
-- each in hexadecimal digits behind an r, or a w where only who writes reaches it so. Null: by anything.
--
-- Whoever names none of these in its text, and calls nothing but what is known to read no tables, is served by nothing that
-- the definitions changed. For what its text does not name there are dependencies: views, parents and partitions, foreign
-- keys, row types. No dependency tells what the functions of clients do, so they are among the names, and with them whatever
-- calls them unasked: triggers, defaults, policies, domains. What may call them that cannot be named, such as operators and
-- casts, makes the answer null.
CREATE FUNCTION steeldb.ddl_reach() RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reach text;
BEGIN
    IF EXISTS (
        SELECT FROM steeldb.ddl_command d
        WHERE CASE d.phase
            WHEN 'end' THEN
                -- Those of identity columns are made along with their tables.
                steeldb.identity_of(d.object_identity) IS NULL AND (d.command_tag NOT IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE INDEX', 'CREATE SEQUENCE',
                                      'ALTER SEQUENCE', 'CREATE VIEW', 'ALTER TABLE')
                OR coalesce(d.object_type, '') NOT IN ('table', 'index', 'sequence', 'view'))
            WHEN 'drop' THEN
                d.command_tag NOT IN ('DROP TABLE', 'DROP VIEW', 'DROP SEQUENCE', 'ALTER TABLE')
                OR d.object_type NOT IN ('table', 'view', 'sequence', 'table column', 'table constraint')
            ELSE d.phase = 'wide'
        END)
        -- These run at a transaction's end, and nobody knows any more why.
        OR EXISTS (
            SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
            WHERE t.tgdeferrable AND steeldb.is_user_schema(c.relnamespace))
        -- Whose values are names: a parameter may hold one.
        OR EXISTS (
            SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE a.attnum > 0 AND NOT a.attisdropped AND steeldb.is_user_schema(c.relnamespace)
              AND a.atttypid IN (
                  SELECT t.oid FROM pg_type t JOIN pg_type name ON name.oid IN (t.oid, t.typelem, t.typbasetype)
                  WHERE name.typnamespace = 'pg_catalog'::regnamespace AND name.typname LIKE 'reg%'))
    THEN
        RETURN NULL;
    END IF;
    WITH RECURSIVE seeds (classid, objid, w) AS (
        SELECT 'pg_class'::regclass::oid, c.oid, false
        FROM pg_class c
        WHERE c.oid IN (
            SELECT to_regclass(coalesce(steeldb.identity_of(d.object_identity), d.object_identity))
            FROM steeldb.ddl_command d WHERE d.phase IN ('end', 'rewrite')
            UNION ALL
            SELECT to_regclass(format('%I.%I', d.schema_name, d.object_identity))
            FROM steeldb.ddl_command d WHERE d.phase = 'reach')
        UNION ALL
        -- What is gone does not tell whose child it was.
        SELECT 'pg_class'::regclass::oid, c.oid, false
        FROM pg_class c
        WHERE (c.relkind = 'p' OR c.relkind = 'r' AND c.relhassubclass) AND steeldb.is_user_schema(c.relnamespace)
          AND EXISTS (SELECT FROM steeldb.ddl_command d WHERE d.phase = 'drop' AND d.object_type = 'table')
        UNION ALL
        -- Those of extensions that clients may create read no tables.
        SELECT 'pg_proc'::regclass::oid, p.oid, false
        FROM pg_proc p
        WHERE p.oid >= 16384 AND steeldb.is_user_schema(p.pronamespace)
          AND NOT EXISTS (
              SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    ), reached (classid, objid, w) AS (
        SELECT * FROM seeds
        UNION
        SELECT e.classid, e.objid, r.w OR e.w
        FROM reached r, LATERAL (
            SELECT d.classid, d.objid, false FROM pg_depend d
            WHERE d.refclassid = r.classid AND d.refobjid = r.objid
            UNION ALL
            SELECT 'pg_class'::regclass::oid, x.ev_class, x.ev_type <> '1' FROM pg_rewrite x
            WHERE r.classid = 'pg_rewrite'::regclass AND x.oid = r.objid
            UNION ALL
            SELECT 'pg_class'::regclass::oid, x.adrelid, true FROM pg_attrdef x
            WHERE r.classid = 'pg_attrdef'::regclass AND x.oid = r.objid
            UNION ALL
            SELECT 'pg_class'::regclass::oid, x.tgrelid, true FROM pg_trigger x
            WHERE r.classid = 'pg_trigger'::regclass AND x.oid = r.objid
            UNION ALL
            SELECT 'pg_class'::regclass::oid, x.polrelid, false FROM pg_policy x
            WHERE r.classid = 'pg_policy'::regclass AND x.oid = r.objid
            UNION ALL
            SELECT 'pg_class'::regclass::oid, k.relation, true
            FROM pg_constraint x, unnest(ARRAY[x.conrelid, x.confrelid]) AS k (relation)
            WHERE r.classid = 'pg_constraint'::regclass AND x.oid = r.objid AND k.relation <> 0
            UNION ALL
            SELECT 'pg_type'::regclass::oid, x.contypid, false FROM pg_constraint x
            WHERE r.classid = 'pg_constraint'::regclass AND x.oid = r.objid AND x.contypid <> 0
            UNION ALL
            SELECT 'pg_class'::regclass::oid, x.indrelid, false FROM pg_index x
            WHERE r.classid = 'pg_class'::regclass AND x.indexrelid = r.objid
            UNION ALL
            SELECT 'pg_class'::regclass::oid, x.inhparent, false FROM pg_inherits x
            WHERE r.classid = 'pg_class'::regclass AND x.inhrelid = r.objid
        ) AS e (classid, objid, w)
    ), names (name, w) AS (
        SELECT c.relname, r.w FROM reached r JOIN pg_class c ON c.oid = r.objid
        WHERE r.classid = 'pg_class'::regclass AND c.relkind NOT IN ('i', 'I', 't')
        UNION ALL
        SELECT t.typname, r.w FROM reached r JOIN pg_type t ON t.oid = r.objid WHERE r.classid = 'pg_type'::regclass
        UNION ALL
        SELECT p.proname, r.w FROM reached r JOIN pg_proc p ON p.oid = r.objid WHERE r.classid = 'pg_proc'::regclass
        UNION ALL
        -- Made and gone again, too.
        SELECT (parse_ident(d.object_identity))[2], false FROM steeldb.ddl_command d
        WHERE d.phase = 'end' AND d.object_type IN ('table', 'view', 'sequence')
        UNION ALL
        SELECT d.object_identity, false FROM steeldb.ddl_command d WHERE d.phase = 'reach'
    ), lines (name, w) AS (
        SELECT n.name, bool_and(n.w) FROM names n GROUP BY n.name
    )
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM reached r
            WHERE r.classid <> ALL (ARRAY['pg_class', 'pg_type', 'pg_proc', 'pg_rewrite', 'pg_attrdef', 'pg_trigger',
                'pg_policy', 'pg_constraint', 'pg_statistic_ext', 'pg_publication_rel', 'pg_default_acl']::regclass[]::oid[]))
            THEN NULL
        WHEN count(*) > 1000 THEN NULL
        ELSE string_agg(CASE WHEN l.w THEN 'w' ELSE 'r' END || encode(convert_to(l.name, 'UTF8'), 'hex'), ',')
    END
    INTO reach FROM lines l;
    RETURN reach;
END
$$;
REVOKE EXECUTE ON FUNCTION steeldb.is_nested(text) FROM PUBLIC;
