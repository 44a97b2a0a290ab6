-- run
SELECT date_trunc('day', now()) <= now(), now() - now(), age(now(), now());
SELECT extract(epoch FROM now()) > 1700000000, to_char(now(), 'YYYY')::int >= 2024;
SELECT now() AT TIME ZONE 'UTC' = now() AT TIME ZONE 'UTC', timezone('UTC', now()) = LOCALTIMESTAMP;
