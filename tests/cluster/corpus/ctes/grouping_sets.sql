CREATE TABLE t (a int, b int, v int);
INSERT INTO t SELECT g % 2, g % 3, g FROM generate_series(1, 12) g;
-- run
SELECT a, b, sum(v), grouping(a, b) FROM t GROUP BY CUBE (a, b) ORDER BY a NULLS LAST, b NULLS LAST;
SELECT a, count(*) FILTER (WHERE v > 6) FROM t GROUP BY ROLLUP (a) ORDER BY a;
