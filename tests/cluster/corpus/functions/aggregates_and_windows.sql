CREATE TABLE t (g int, v int);
INSERT INTO t SELECT i % 3, i FROM generate_series(1, 12) i;
CREATE AGGREGATE product(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1');
-- run
SELECT g, product(v), array_agg(v ORDER BY v) FROM t GROUP BY g ORDER BY g;
SELECT v, rank() OVER w, lag(v) OVER w, sum(v) OVER (PARTITION BY g ORDER BY v) FROM t WINDOW w AS (ORDER BY v) ORDER BY v;
