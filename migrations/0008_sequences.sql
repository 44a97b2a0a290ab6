-- Sequences. nextval is not transactional, and what it gives depends on who came first; so the master draws, its agent
-- hears each value in a message that it keeps to itself, and every other replica is handed the values before it executes
-- the same operation. The functions here shadow pg_catalog's as those of 0002 do.
--
-- A session's state must be out of its client's reach and must not go back with a savepoint. currval() of a sequence is
-- both: local to a session, not transactional, and closed to who has no rights on the sequence. So these hold no
-- sequence's values; each is a variable of the session. They are UNLOGGED: no transaction id, no WAL.

-- Known to the agent and to this session's functions alone: what proves a message to be theirs, and a command the agent's.
CREATE UNLOGGED SEQUENCE steeldb.draw_token MINVALUE 0 START 0;
-- 1: draw from the sequences (the master). From 2 on: take what was handed over, next is draw (n - 2) mod 2^32 of run
-- (n - 2) / 2^32.
CREATE UNLOGGED SEQUENCE steeldb.draw_next;
-- Under which this operation's runs are sealed.
CREATE UNLOGGED SEQUENCE steeldb.draw_key MINVALUE 0 START 0;
REVOKE ALL ON SEQUENCE steeldb.draw_token, steeldb.draw_next, steeldb.draw_key FROM PUBLIC;

-- Starts a session: only the agent can, by a MAC over this backend's number and the token (compare
-- steeldb.record_transaction). anew: this is the master.
CREATE FUNCTION steeldb.arm_draws(token int8, anew bool, mac bytea) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER
AS $$
BEGIN
    PERFORM FROM steeldb.agent_secret AS secret
    WHERE pg_catalog.sha256(secret.outer_pad OPERATOR(pg_catalog.||) pg_catalog.sha256(
        secret.inner_pad OPERATOR(pg_catalog.||) pg_catalog.convert_to('steeldb/draws/', 'UTF8')
        OPERATOR(pg_catalog.||) pg_catalog.int4send(pg_catalog.pg_backend_pid())
        OPERATOR(pg_catalog.||) pg_catalog.int8send(token)))
        OPERATOR(pg_catalog.=) mac;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sessions are started by SteelDB alone' USING ERRCODE = '42501';
    END IF;
    PERFORM pg_catalog.setval('steeldb.draw_token', token);
    PERFORM pg_catalog.setval('steeldb.draw_key', 0);
    PERFORM pg_catalog.setval('steeldb.draw_next', CASE WHEN anew THEN 1 ELSE 2 END);
END
$$;

-- Hands over the draws of the operation that comes next: runs as lines of "kind first step count sequence", the sequence's
-- qualified name in hexadecimal digits. NULL: draw from the sequences from now on. They are kept in settings of the
-- transaction, 64 runs each, sealed, since the client could write to those.
CREATE FUNCTION steeldb.hand_draws(token int8, runs text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    key pg_catalog.int8;
    lines pg_catalog.text[];
    piece pg_catalog.text;
BEGIN
    IF token OPERATOR(pg_catalog.<>) pg_catalog.currval('steeldb.draw_token') THEN
        RAISE EXCEPTION 'draws are handed over by SteelDB alone' USING ERRCODE = '42501';
    END IF;
    IF runs IS NULL THEN
        PERFORM pg_catalog.setval('steeldb.draw_next', 1);
        RETURN;
    END IF;
    -- Not random(), which is seeded for the client; this is the server's own generator.
    key := ('x' OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())::pg_catalog.text, 3, 12))
        ::pg_catalog.bit(48)::pg_catalog.int8;
    PERFORM pg_catalog.setval('steeldb.draw_key', key);
    PERFORM pg_catalog.setval('steeldb.draw_next', 2);
    IF runs OPERATOR(pg_catalog.=) '' THEN
        RETURN;
    END IF;
    lines := pg_catalog.string_to_array(runs, E'\n');
    FOR i IN 0 .. (pg_catalog.cardinality(lines) OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) 64 LOOP
        piece := pg_catalog.array_to_string(
            lines[i OPERATOR(pg_catalog.*) 64 OPERATOR(pg_catalog.+) 1 : i OPERATOR(pg_catalog.*) 64 OPERATOR(pg_catalog.+) 64],
            E'\n');
        PERFORM pg_catalog.set_config('steeldb.draws_' OPERATOR(pg_catalog.||) i,
            pg_catalog.concat(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
                pg_catalog.concat_ws('/', key, i, piece), 'UTF8')), 'hex'), piece), true);
    END LOOP;
END
$$;

-- Takes the next draw: of this kind (n a value, s a setval, x a sequence at its end) and this sequence, or the master did
-- something else than this replica does. Gives the run's step, too, of which a setval makes use.
CREATE FUNCTION steeldb.take_draw(kind text, sequence text, OUT value int8, OUT step int8, OUT taken text)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    place pg_catalog.int8 := pg_catalog.currval('steeldb.draw_next') OPERATOR(pg_catalog.-) 2;
    run pg_catalog.int8 := place OPERATOR(pg_catalog.>>) 32;
    nth pg_catalog.int8 := place OPERATOR(pg_catalog.&) 4294967295;
    piece pg_catalog.text := pg_catalog.current_setting(
        'steeldb.draws_' OPERATOR(pg_catalog.||) (run OPERATOR(pg_catalog.>>) 6), true);
    fields pg_catalog.text[];
BEGIN
    IF pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat_ws('/',
        pg_catalog.currval('steeldb.draw_key'), run OPERATOR(pg_catalog.>>) 6, pg_catalog.substr(piece, 65)), 'UTF8')), 'hex')
        OPERATOR(pg_catalog.=) pg_catalog.substr(piece, 1, 64)
    THEN
        fields := pg_catalog.string_to_array(pg_catalog.split_part(pg_catalog.substr(piece, 65), E'\n',
            (run OPERATOR(pg_catalog.&) 63)::pg_catalog.int4 OPERATOR(pg_catalog.+) 1), ' ');
    END IF;
    taken := fields[1];
    IF (taken OPERATOR(pg_catalog.=) kind OR kind OPERATOR(pg_catalog.=) 'n' AND taken OPERATOR(pg_catalog.=) 'x')
        AND fields[5] OPERATOR(pg_catalog.=) pg_catalog.encode(pg_catalog.convert_to(sequence, 'UTF8'), 'hex')
    THEN
        step := fields[3]::pg_catalog.int8;
        value := fields[2]::pg_catalog.int8 OPERATOR(pg_catalog.+) (nth OPERATOR(pg_catalog.*) step);
        PERFORM pg_catalog.setval('steeldb.draw_next', 2 OPERATOR(pg_catalog.+) CASE
            WHEN nth OPERATOR(pg_catalog.+) 1 OPERATOR(pg_catalog.<) fields[4]::pg_catalog.int8
            THEN place OPERATOR(pg_catalog.+) 1
            ELSE (run OPERATOR(pg_catalog.+) 1) OPERATOR(pg_catalog.<<) 32 END);
        RETURN;
    END IF;
    RAISE EXCEPTION 'the master drew nothing from sequence % here', sequence USING ERRCODE = '40000';
END
$$;

-- Says to the agent what was drawn. INFO goes out whatever client_min_messages is.
CREATE FUNCTION steeldb.report_draw(kind text, value int8, step int8, sequence text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RAISE INFO '% % % % %', pg_catalog.currval('steeldb.draw_token'), kind, value, step, sequence USING ERRCODE = 'SDSEQ';
END
$$;

-- The caller's session has drawn `drawn` from its server's sequence: that is the value at the master, and is reported;
-- elsewhere the value is the master's, and this server's sequence and session follow. NULL: its sequence is at its end.
-- A client that calls this gains nothing: what it has not drawn is refused.
CREATE FUNCTION steeldb.drawn(sequence regclass, drawn int8) RETURNS int8
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    name pg_catalog.text := steeldb.relation_name(sequence);
    draw record;
    step pg_catalog.int8;
    ahead pg_catalog.bool;
BEGIN
    IF drawn IS NULL THEN
        IF pg_catalog.currval('steeldb.draw_next') OPERATOR(pg_catalog.=) 1 THEN
            PERFORM steeldb.report_draw('x', 0, 0, name);
            RETURN pg_catalog.nextval(sequence); -- fails as it did
        END IF;
    ELSIF pg_catalog.currval(sequence) OPERATOR(pg_catalog.<>) drawn THEN
        RAISE EXCEPTION 'this session has not drawn % from sequence %', drawn, name USING ERRCODE = '42501';
    ELSIF pg_catalog.currval('steeldb.draw_next') OPERATOR(pg_catalog.=) 1 THEN
        PERFORM steeldb.report_draw('n', drawn, 0, name);
        RETURN drawn;
    END IF;
    draw := steeldb.take_draw('n', name);
    IF draw.taken OPERATOR(pg_catalog.=) 'x' THEN
        RAISE EXCEPTION 'nextval: reached the end of sequence "%"', sequence USING ERRCODE = '2200H';
    ELSIF drawn IS NULL THEN
        -- lastval() is of the sequence that nextval() was last called for.
        PERFORM pg_catalog.setval(sequence, draw.value, false);
        PERFORM pg_catalog.nextval(sequence);
        PERFORM pg_catalog.setval(sequence, draw.value);
    ELSIF draw.value OPERATOR(pg_catalog.<>) drawn THEN
        SELECT s.seqincrement INTO step FROM pg_catalog.pg_sequence AS s WHERE s.seqrelid OPERATOR(pg_catalog.=) sequence;
        ahead := CASE WHEN step OPERATOR(pg_catalog.>) 0 THEN drawn OPERATOR(pg_catalog.>) draw.value
                 ELSE drawn OPERATOR(pg_catalog.<) draw.value END;
        PERFORM pg_catalog.setval(sequence, draw.value);
        IF ahead THEN
            -- Others have drawn further here: only this session's currval() is to be the older value.
            PERFORM pg_catalog.setval(sequence, drawn, false);
        END IF;
    END IF;
    RETURN draw.value;
END
$$;

-- The caller's session has set its server's sequence.
CREATE FUNCTION steeldb.was_set(sequence regclass, value int8, is_called bool) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    name pg_catalog.text := steeldb.relation_name(sequence);
    called pg_catalog.int8 := is_called::pg_catalog.int4;
    draw record;
BEGIN
    IF pg_catalog.currval('steeldb.draw_next') OPERATOR(pg_catalog.=) 1 THEN
        PERFORM steeldb.report_draw('s', value, called, name);
        RETURN;
    END IF;
    draw := steeldb.take_draw('s', name);
    IF draw.value OPERATOR(pg_catalog.<>) value OR draw.step OPERATOR(pg_catalog.<>) called THEN
        RAISE EXCEPTION 'the master set sequence % to another value', name USING ERRCODE = '40000';
    END IF;
END
$$;

-- As pg_catalog's, with its checks of the caller's rights and its errors.
CREATE FUNCTION steeldb.nextval(regclass) RETURNS int8
LANGUAGE plpgsql VOLATILE STRICT
AS $$
DECLARE
    drawn pg_catalog.int8;
BEGIN
    BEGIN
        drawn := pg_catalog.nextval($1);
    EXCEPTION WHEN sequence_generator_limit_exceeded THEN
        drawn := NULL;
    END;
    RETURN steeldb.drawn($1, drawn);
END
$$;

CREATE FUNCTION steeldb.setval(regclass, int8) RETURNS int8
LANGUAGE plpgsql VOLATILE STRICT
AS $$
BEGIN
    PERFORM pg_catalog.setval($1, $2);
    PERFORM steeldb.was_set($1, $2, true);
    RETURN $2;
END
$$;

CREATE FUNCTION steeldb.setval(regclass, int8, bool) RETURNS int8
LANGUAGE plpgsql VOLATILE STRICT
AS $$
BEGIN
    PERFORM pg_catalog.setval($1, $2, $3);
    PERFORM steeldb.was_set($1, $2, $3);
    RETURN $2;
END
$$;

-- These speak for the functions above.
REVOKE EXECUTE ON FUNCTION steeldb.take_draw(text, text), steeldb.report_draw(text, int8, int8, text) FROM PUBLIC;

-- Identity columns draw by themselves, from the sequence and not through a function. A row's value that the session has
-- just drawn is one of those; if a client wrote that very value, it is replaced by itself.
CREATE FUNCTION steeldb.on_identity() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    sequence pg_catalog.regclass := tg_argv[1]::pg_catalog.oid::pg_catalog.regclass;
    drawn pg_catalog.int8;
    value pg_catalog.int8;
BEGIN
    BEGIN
        drawn := pg_catalog.currval(sequence);
    EXCEPTION WHEN object_not_in_prerequisite_state OR internal_error THEN
        RETURN NEW; -- it never drew; or the sequence is gone
    END;
    EXECUTE pg_catalog.format('SELECT ($1).%I', tg_argv[0]) INTO value USING NEW;
    IF value OPERATOR(pg_catalog.=) drawn THEN
        value := steeldb.drawn(sequence, drawn);
        IF value OPERATOR(pg_catalog.<>) drawn THEN
            NEW := pg_catalog.jsonb_populate_record(NEW, pg_catalog.jsonb_build_object(tg_argv[0], value));
        END IF;
    END IF;
    RETURN NEW;
END
$$;

-- Gives a table, or the partition of one, the triggers for its identity columns. They are marked as the system's: not
-- dumped, not the owner's to disable; and they are the first of all by name.
CREATE FUNCTION steeldb.mind_identity(relation oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    identity record;
    old record;
BEGIN
    FOR identity IN
        SELECT a.attname, d.objid AS sequence, '!steeldb_identity_' || left(md5(a.attname), 16) AS name
        FROM (SELECT relation AS oid UNION SELECT p.relid FROM pg_partition_ancestors(relation) AS p) AS family
        JOIN pg_attribute a ON a.attrelid = family.oid AND a.attidentity <> '' AND NOT a.attisdropped
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i'
        ORDER BY a.attname COLLATE "C"
    LOOP
        SELECT t.oid, t.tgname, t.tgargs INTO old FROM pg_trigger t
        WHERE t.tgrelid = relation AND t.tgname = identity.name;
        CONTINUE WHEN old.tgargs = convert_to(identity.attname, 'UTF8') || '\x00'
            || convert_to(identity.sequence::text, 'UTF8') || '\x00';
        IF old.oid IS NOT NULL THEN
            EXECUTE format('DROP TRIGGER %I ON %s', old.tgname, steeldb.relation_name(relation));
        END IF;
        EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION steeldb.on_identity(%L, %L)',
            identity.name, steeldb.relation_name(relation), identity.attname, identity.sequence);
        UPDATE pg_trigger SET tgisinternal = true
        WHERE tgrelid = relation AND tgname = identity.name;
    END LOOP;
END
$$;

-- Defaults were compiled with pg_catalog's functions where a keyword (SERIAL) or a dump's qualified name chose those:
-- read back and compiled again they have the replicated ones. CURRENT_TIMESTAMP and the like have names of their own.
CREATE FUNCTION steeldb.rebind_defaults(relation oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
    expression text;
    keyword text;
    actions text[];
BEGIN
    FOR part IN
        SELECT a.attname, pg_get_expr(d.adbin, d.adrelid) AS expression
        FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE d.adrelid = relation AND a.attgenerated = '' AND (
            d.adbin::text ~ '\{SQLVALUEFUNCTION :op [0-8] '
            OR EXISTS (
                SELECT FROM pg_proc built_in
                JOIN pg_proc ours ON ours.proname = built_in.proname AND ours.proargtypes = built_in.proargtypes
                WHERE built_in.pronamespace = 'pg_catalog'::regnamespace AND ours.pronamespace = 'steeldb'::regnamespace
                  AND strpos(d.adbin::text, ':funcid ' || built_in.oid || ' ') > 0))
        ORDER BY a.attname COLLATE "C"
    LOOP
        expression := part.expression;
        -- Inside quotes the words are not keywords; such a default is left to the vote.
        IF expression !~ '["'']' THEN
            FOREACH keyword IN ARRAY ARRAY['CURRENT_TIMESTAMP', 'CURRENT_DATE', 'CURRENT_TIME', 'LOCALTIMESTAMP', 'LOCALTIME'] LOOP
                expression := regexp_replace(expression, '\m' || keyword || '\M(?!\()', keyword || '()', 'g');
                expression := regexp_replace(expression, '\m' || keyword || '\M\(', format('steeldb.%I(', lower(keyword)), 'g');
            END LOOP;
        END IF;
        actions := actions || format('ALTER COLUMN %I SET DEFAULT %s', part.attname, expression);
    END LOOP;
    IF actions IS NOT NULL THEN
        -- One command: this fires the event triggers again.
        PERFORM set_config('search_path', 'steeldb, pg_catalog', true);
        EXECUTE format('ALTER TABLE ONLY %s %s', steeldb.relation_name(relation), array_to_string(actions, ', '));
        PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    END IF;
END
$$;

CREATE FUNCTION steeldb.on_ddl_draws() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    command record;
    member record;
BEGIN
    FOR command IN
        SELECT DISTINCT d.objid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass::oid
    LOOP
        FOR member IN
            WITH RECURSIVE family (oid) AS (
                SELECT c.oid FROM pg_class c WHERE c.oid = command.objid AND c.relkind IN ('r', 'p')
                UNION SELECT i.inhrelid FROM pg_inherits i JOIN family f ON i.inhparent = f.oid)
            SELECT c.oid, c.relkind FROM family f
            JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND steeldb.is_user_schema(c.relnamespace)
            ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
        LOOP
            PERFORM steeldb.rebind_defaults(member.oid);
            IF member.relkind = 'r' THEN
                PERFORM steeldb.mind_identity(member.oid);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

CREATE EVENT TRIGGER steeldb_draws ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA')
    EXECUTE FUNCTION steeldb.on_ddl_draws();

REVOKE EXECUTE ON FUNCTION steeldb.mind_identity(oid), steeldb.rebind_defaults(oid) FROM PUBLIC;

-- What existed before.
SELECT steeldb.rebind_defaults(c.oid), CASE WHEN c.relkind = 'r' THEN steeldb.mind_identity(c.oid) END
FROM pg_class c WHERE c.relkind IN ('r', 'p') AND steeldb.is_user_schema(c.relnamespace);
