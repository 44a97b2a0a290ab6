-- What DDL did and decoding does not show (G1): the catalogs by name, and the contents of relations that the transaction
-- rewrote (ALTER TABLE with a rewrite) or filled without row changes (materialized views). Null when the transaction ran
-- no DDL. The agent calls it before PREPARE, in the client's session; steeldb.record_transaction then deletes the
-- rows, so what is in steeldb.ddl_command is always the current transaction's own.
CREATE FUNCTION steeldb.ddl_effects() RETURNS bytea
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
