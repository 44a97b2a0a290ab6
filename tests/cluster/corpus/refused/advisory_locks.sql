-- run
SELECT pg_advisory_lock(1);
SELECT pg_try_advisory_lock(1);
SELECT pg_advisory_xact_lock(1);
SELECT pg_try_advisory_xact_lock(1, 2);
SELECT pg_advisory_unlock_all();
