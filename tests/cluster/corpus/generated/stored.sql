CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED, c text GENERATED ALWAYS AS (upper('x' || a::text)) STORED);
-- run
INSERT INTO t (id, a) VALUES (1, 10), (2, 20) RETURNING b, c;
UPDATE t SET a = a + 1 WHERE id = 1 RETURNING b;
INSERT INTO t (id, a, b) VALUES (3, 1, 5);
UPDATE t SET b = 7;
SELECT * FROM t ORDER BY id;
