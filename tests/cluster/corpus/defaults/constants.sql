CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 7, b text DEFAULT 'x' || 'y', c bool DEFAULT true, d numeric DEFAULT 1.50, e text);
-- run
INSERT INTO t (id) VALUES (1);
INSERT INTO t VALUES (2, DEFAULT, 'z', DEFAULT, 2);
INSERT INTO t (id, a) SELECT 3, a + 1 FROM t WHERE id = 1;
UPDATE t SET a = DEFAULT, e = DEFAULT WHERE id = 3;
SELECT * FROM t ORDER BY id;
