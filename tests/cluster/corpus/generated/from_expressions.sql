CREATE TABLE t (a int, b int, c int GENERATED ALWAYS AS (a + coalesce(b, 0)) STORED, d text GENERATED ALWAYS AS (upper(a::text || 'x')) STORED);
-- run
INSERT INTO t (a, b) VALUES (1, 2), (3, NULL) RETURNING *;
UPDATE t SET b = 5 WHERE a = 3 RETURNING c;
INSERT INTO t (a, c) VALUES (1, 1);
UPDATE t SET c = 9;
INSERT INTO t (a, c) VALUES (7, DEFAULT) RETURNING c, d;
SELECT * FROM t ORDER BY a;
