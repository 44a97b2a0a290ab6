CREATE TABLE t (id int PRIMARY KEY, d date, ts timestamp, tz timestamptz, i interval, tm time);
-- run
INSERT INTO t VALUES (1, '2024-02-29', '2024-02-29 23:59:59.999999', '2024-02-29 12:00+05:30', '1 year 2 mons 3 days 04:05:06', '24:00'), (2, 'infinity', '-infinity', '1900-01-01 00:00+00', '-1 day', '00:00');
SELECT * FROM t ORDER BY id;
SELECT d + 1, ts + i, tz - interval '1 month', justify_days(i * 12), extract(isodow FROM ts) FROM t WHERE id = 1;
SELECT date_trunc('quarter', DATE '2024-05-05'), age('2024-03-01', '2023-01-31'), make_date(2024, 12, 31) - DATE '2024-01-01';
