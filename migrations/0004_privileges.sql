-- Functions that no client may call, because their effect is local to a replica, or outlives or escapes a transaction:
-- large objects and logical messages are decoded as no row, session-level and trying advisory locks depend on timing,
-- exported snapshots and notifications make PREPARE fail, signals hit what differs between replicas.
--
-- Their rights are taken from PUBLIC in pg_catalog, per database. Whatever version has more variants of a name: all.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN (
            'lo_creat', 'lo_create', 'lo_open', 'lo_from_bytea', 'lo_get', 'lo_put', 'lo_import', 'lo_export', 'lo_truncate',
            'lo_truncate64', 'lo_unlink', 'loread', 'lowrite',
            'pg_export_snapshot', 'pg_notify', 'pg_logical_emit_message',
            'pg_advisory_lock', 'pg_advisory_lock_shared', 'pg_advisory_unlock', 'pg_advisory_unlock_shared',
            'pg_advisory_unlock_all', 'pg_try_advisory_lock', 'pg_try_advisory_lock_shared',
            'pg_try_advisory_xact_lock', 'pg_try_advisory_xact_lock_shared',
            'pg_cancel_backend', 'pg_terminate_backend')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
    -- PREPARE refuses transactions that touched temporary objects, so clients make none.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

-- Only schema steeldb's functions are for clients: its tables show other clients' work.
REVOKE ALL ON steeldb.migration, steeldb.transaction, steeldb.ddl_command FROM PUBLIC;
-- A session may see whether it has DDL to account for: no other transaction's rows are ever visible.
GRANT SELECT ON steeldb.ddl_command TO PUBLIC;
