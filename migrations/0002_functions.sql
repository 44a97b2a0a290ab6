-- Functions whose built-in namesakes would answer differently on each replica. The database's search_path has steeldb
-- before pg_catalog, so that an unqualified now() is one of these.
--
-- The time is the slot's (design, rule 3), set for the transaction by the agent in the parameter steeldb.now. A client may
-- set that parameter too: then it has the time it asked for, the same on every replica.

-- Asked for only when no time is set: an error is alike everywhere, the local clock is not.
CREATE FUNCTION steeldb.no_time() RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'no replicated time is set in this session'
        USING ERRCODE = '55000', HINT = 'Transactions of clients have one; elsewhere use pg_catalog.now().';
END
$$;

-- These are plain SQL without SET, so that the planner can inline them. Their names are resolved now, by the body's
-- standard form, and not by what the caller has in its search_path.
CREATE FUNCTION steeldb.now() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('steeldb.now', true), '')::timestamptz, steeldb.no_time());

-- Between two operations of a transaction there is no later agreed time, so all clocks stand at its slot.
CREATE FUNCTION steeldb.transaction_timestamp() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now();
CREATE FUNCTION steeldb.statement_timestamp() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now();
CREATE FUNCTION steeldb.clock_timestamp() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now();

-- As the built-in one writes it.
CREATE FUNCTION steeldb.timeofday() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE RETURN to_char(steeldb.now(), 'Dy Mon DD HH24:MI:SS.US YYYY TZ');

-- The keyword forms, which no search_path reaches; the proxy rewrites CURRENT_TIMESTAMP to steeldb."current_timestamp"().
CREATE FUNCTION steeldb."current_timestamp"() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now();
CREATE FUNCTION steeldb."current_timestamp"("precision" int4) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN timestamptz(steeldb.now(), "precision");
CREATE FUNCTION steeldb."current_date"() RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now()::date;
CREATE FUNCTION steeldb."current_time"() RETURNS timetz
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now()::timetz;
CREATE FUNCTION steeldb."current_time"("precision" int4) RETURNS timetz
LANGUAGE sql STABLE PARALLEL SAFE RETURN timetz(steeldb.now()::timetz, "precision");
CREATE FUNCTION steeldb."localtime"() RETURNS time
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now()::time;
CREATE FUNCTION steeldb."localtime"("precision" int4) RETURNS time
LANGUAGE sql STABLE PARALLEL SAFE RETURN "time"(steeldb.now()::time, "precision");
CREATE FUNCTION steeldb."localtimestamp"() RETURNS timestamp
LANGUAGE sql STABLE PARALLEL SAFE RETURN steeldb.now()::timestamp;
CREATE FUNCTION steeldb."localtimestamp"("precision" int4) RETURNS timestamp
LANGUAGE sql STABLE PARALLEL SAFE RETURN "timestamp"(steeldb.now()::timestamp, "precision");

-- A version 4 UUID from the transaction's secret seed and a count. The count is a parameter, which a rollback to a
-- savepoint sets back; random(), which is seeded at the transaction's start and never set back, keeps UUIDs apart then.
CREATE FUNCTION steeldb.gen_random_uuid() RETURNS uuid
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    seed pg_catalog.text := pg_catalog.current_setting('steeldb.seed', true);
    counter pg_catalog.int8;
    bytes pg_catalog.bytea;
BEGIN
    IF pg_catalog.length(seed) IS NULL OR seed OPERATOR(pg_catalog.=) '' THEN
        RAISE EXCEPTION 'no replicated randomness is set in this session' USING ERRCODE = '55000';
    END IF;
    counter := pg_catalog.current_setting('steeldb.uuid_counter')::pg_catalog.int8 OPERATOR(pg_catalog.+) 1;
    PERFORM pg_catalog.set_config('steeldb.uuid_counter', counter::pg_catalog.text, true);
    bytes := pg_catalog.sha256(pg_catalog.convert_to(
        pg_catalog.concat_ws('/', seed, counter, pg_catalog.random(), pg_catalog.random()), 'UTF8'));
    -- RFC 4122: the version and the variant.
    bytes := pg_catalog.set_byte(pg_catalog.substr(bytes, 1, 16), 6,
        (pg_catalog.get_byte(bytes, 6) OPERATOR(pg_catalog.&) 15) OPERATOR(pg_catalog.|) 64);
    bytes := pg_catalog.set_byte(bytes, 8,
        (pg_catalog.get_byte(bytes, 8) OPERATOR(pg_catalog.&) 63) OPERATOR(pg_catalog.|) 128);
    RETURN pg_catalog.encode(bytes, 'hex')::pg_catalog.uuid;
END
$$;
