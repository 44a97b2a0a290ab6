-- run
SET TIME ZONE 'America/New_York';
SELECT now() = CURRENT_TIMESTAMP, CURRENT_DATE = now()::date, LOCALTIME = now()::time;
SET timezone = 'Asia/Kolkata';
SELECT '2024-07-01 12:00+00'::timestamptz, to_char(TIMESTAMPTZ '2024-01-01 00:00+00', 'TZ OF');
RESET timezone;
SELECT '2024-07-01 12:00+00'::timestamptz;
