-- What voted transactions drew from sequences: how far each sequence was used. nextval leaves no row that decoding shows;
-- these rows do, so that draws are part of what is voted on, reach replicas that take the transaction as a write set, and
-- tell a new master from where on it may draw.
CREATE TABLE steeldb.draw (
    sequence text NOT NULL,
    -- The greatest and the least value that the transaction drew.
    greatest int8 NOT NULL,
    least int8 NOT NULL,
    tx_id bytea NOT NULL,
    PRIMARY KEY (sequence, greatest, tx_id)
);
COMMENT ON TABLE steeldb.draw IS 'What voted transactions drew from sequences; written by steeldb.record_draws alone.';
REVOKE ALL ON steeldb.draw FROM PUBLIC;

-- Records a transaction's draws: lines of "sequence least greatest", the sequence's qualified name in hexadecimal digits.
-- Only the agent can, by a MAC over all of it (compare steeldb.record_transaction).
CREATE FUNCTION steeldb.record_draws(tx_id bytea, draws text, mac bytea) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER
AS $$
BEGIN
    PERFORM FROM steeldb.agent_secret AS secret
    WHERE pg_catalog.sha256(secret.outer_pad OPERATOR(pg_catalog.||) pg_catalog.sha256(
        secret.inner_pad OPERATOR(pg_catalog.||) pg_catalog.convert_to('steeldb/record-draws/', 'UTF8')
        OPERATOR(pg_catalog.||) pg_catalog.int4send(pg_catalog.length(tx_id))
        OPERATOR(pg_catalog.||) tx_id OPERATOR(pg_catalog.||) pg_catalog.convert_to(draws, 'UTF8')))
        OPERATOR(pg_catalog.=) mac;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the draws of a transaction are recorded by SteelDB alone' USING ERRCODE = '42501';
    END IF;
    INSERT INTO steeldb.draw
    SELECT pg_catalog.convert_from(pg_catalog.decode(pg_catalog.split_part(line, ' ', 1), 'hex'), 'UTF8'),
           pg_catalog.split_part(line, ' ', 3)::pg_catalog.int8,
           pg_catalog.split_part(line, ' ', 2)::pg_catalog.int8,
           tx_id
    FROM pg_catalog.unnest(pg_catalog.string_to_array(draws, E'\n')) AS line;
END
$$;
