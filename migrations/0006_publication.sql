-- What decoding publishes: every table, partitions as themselves (publishing through the root would hide the TRUNCATE of a
-- leaf, G5). UPDATE and DELETE then need a replica identity, which the event triggers give new tables; older ones get it
-- here.
SELECT steeldb.fix_replica_identities();

CREATE PUBLICATION steeldb FOR ALL TABLES WITH (publish_via_partition_root = false);

-- Unqualified now() is steeldb.now(), while CREATE TABLE still goes to public. pg_catalog is named, last, since otherwise it
-- would implicitly come first. The agent's own sessions resolve names in pg_catalog alone.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = "$user", public, steeldb, pg_catalog', current_database());
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = pg_catalog', current_user, current_database());
END
$$;
