CREATE TABLE t (id int PRIMARY KEY, n numeric, f float8, r real, s smallint, b bigint, m numeric(10, 2));
-- run
INSERT INTO t VALUES (1, 1.10, 0.1 + 0.2, 1e-7, -32768, 9223372036854775807, 1.005), (2, 'NaN', 'Infinity', '-0', 0, 0, 99999999.99);
SELECT * FROM t ORDER BY id;
SELECT sum(m), avg(m), sum(b) FROM t;
SELECT n * 3, f * 10, round(m), trunc(m, 1), 7 % -3, -7 / 2, 2 ^ 10 FROM t WHERE id = 1;
INSERT INTO t (id, m) VALUES (3, 100000000);
