CREATE TYPE pair AS (a int, b text);
CREATE TABLE t (id int PRIMARY KEY, p pair, ps pair[]);
-- run
INSERT INTO t VALUES (1, ROW(1, 'x'), ARRAY[ROW(2, 'y')::pair, ROW(NULL, 'a,b')::pair]);
UPDATE t SET p.a = 5 RETURNING (p).a, p;
SELECT p, ps, (ps[1]).b FROM t;
SELECT (p).* FROM t;
