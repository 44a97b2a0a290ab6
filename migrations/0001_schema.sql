-- The tables of schema steeldb. Everything here belongs to the agent's superuser; clients may look names up (USAGE) and
-- create nothing.

GRANT USAGE ON SCHEMA steeldb TO PUBLIC;

-- One row for every voted transaction, written in the transaction itself: visible = applied (A5). It also gives every
-- voted transaction a row change, without which decoding would show nothing (G4).
CREATE TABLE steeldb.transaction (
    tx_id bytea PRIMARY KEY,
    slot int8 NOT NULL,
    operations int4 NOT NULL,
    transcript bytea NOT NULL
);
COMMENT ON TABLE steeldb.transaction IS 'Voted transactions; written by steeldb.record_transaction alone.';

-- This server's secret: with it the agent authorises records. Random per server; it is inserted outside any prepared
-- transaction, so it is in no write set. The pads are HMAC's, computed once.
CREATE TABLE steeldb.agent_secret (
    only_one bool PRIMARY KEY DEFAULT true CHECK (only_one),
    key bytea NOT NULL CHECK (length(key) = 32),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64)
);
REVOKE ALL ON steeldb.agent_secret FROM PUBLIC;

DO $$
DECLARE
    -- The generator of UUIDs is the server's strong one; three of them hold 366 random bits.
    secret bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    inner_pad bytea := decode(repeat('36', 64), 'hex');
    outer_pad bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    FOR i IN 0..31 LOOP
        inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(secret, i));
        outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(secret, i));
    END LOOP;
    INSERT INTO steeldb.agent_secret VALUES (true, secret, inner_pad, outer_pad);
END
$$;

-- Inserts a transaction's record if the agent authorised exactly this one. It runs in the client's session, so the
-- authority cannot be who calls: it is a MAC, HMAC-SHA-256 (RFC 2104, written out in its two hashes, which is sound
-- where a bare hash of key and message could be extended) over all fields, of which all but the last have a fixed or a
-- stated length. A MAC serves once: its tx_id is a key.
-- Names and operators are all qualified, so a search_path of the function's own, which costs each call, is not needed.
-- ran_ddl is the agent's knowledge that steeldb.ddl_command has rows: what DDL this transaction ran is in its write set,
-- and nobody else needs it.
CREATE FUNCTION steeldb.record_transaction(
    tx_id bytea, slot int8, operations int4, transcript bytea, mac bytea, ran_ddl bool)
RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER
AS $$
BEGIN
    INSERT INTO steeldb.transaction
    SELECT tx_id, slot, operations, transcript FROM steeldb.agent_secret AS secret
    WHERE pg_catalog.sha256(secret.outer_pad OPERATOR(pg_catalog.||) pg_catalog.sha256(
        secret.inner_pad OPERATOR(pg_catalog.||) pg_catalog.int4send(pg_catalog.length(tx_id))
        OPERATOR(pg_catalog.||) tx_id OPERATOR(pg_catalog.||) pg_catalog.int8send(slot)
        OPERATOR(pg_catalog.||) pg_catalog.int4send(operations) OPERATOR(pg_catalog.||) transcript))
        OPERATOR(pg_catalog.=) mac;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the record of a transaction is written by SteelDB alone' USING ERRCODE = '42501';
    END IF;
    IF ran_ddl THEN
        DELETE FROM steeldb.ddl_command;
    END IF;
END
$$;

-- What DDL a transaction ran, so that its write set tells (rule 9). Rows have no key: an ordinal or an id would have to
-- be equal on all replicas, and the write set holds them in order anyway. steeldb.record_transaction deletes them, so a
-- committed row is never seen.
CREATE TABLE steeldb.ddl_command (
    phase text NOT NULL CHECK (phase IN ('end', 'drop', 'rewrite')),
    command_tag text NOT NULL,
    object_type text,
    schema_name text,
    object_identity text
);
ALTER TABLE steeldb.ddl_command REPLICA IDENTITY FULL;
COMMENT ON TABLE steeldb.ddl_command IS 'DDL commands of clients; written by event triggers alone.';

-- The extensions that clients may create. All of these are trusted by PostgreSQL, deterministic, and reach neither
-- files nor other servers.
CREATE TABLE steeldb.allowed_extension (name text PRIMARY KEY);
INSERT INTO steeldb.allowed_extension VALUES
    ('btree_gin'), ('btree_gist'), ('citext'), ('cube'), ('dict_int'), ('fuzzystrmatch'), ('hstore'), ('intarray'),
    ('isn'), ('ltree'), ('pg_trgm'), ('plpgsql'), ('seg'), ('unaccent');
GRANT SELECT ON steeldb.allowed_extension TO PUBLIC;
