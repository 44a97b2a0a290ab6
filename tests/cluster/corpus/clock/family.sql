-- run
SELECT now() = CURRENT_TIMESTAMP, transaction_timestamp() = now(), CURRENT_DATE = now()::date;
SELECT CURRENT_TIME = now()::timetz, LOCALTIME = now()::time, LOCALTIMESTAMP = now()::timestamp;
SELECT CURRENT_TIMESTAMP(0) = now()::timestamptz(0), LOCALTIMESTAMP(2) = now()::timestamp(2), CURRENT_TIME(3) = now()::timetz(3);
SELECT pg_typeof(now()), pg_typeof(CURRENT_DATE), pg_typeof(LOCALTIME), pg_typeof(clock_timestamp());
