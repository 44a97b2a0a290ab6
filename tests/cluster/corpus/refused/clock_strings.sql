-- run
SELECT 'now'::timestamptz;
SELECT timestamp 'today';
