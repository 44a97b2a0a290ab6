CREATE TABLE t (a int, b text);
CREATE TABLE u (a int, b text);
-- run
INSERT INTO t VALUES (1, 'x'), (2, NULL);
INSERT INTO u TABLE t;
INSERT INTO u (b, a) SELECT b, a + 5 FROM t;
SELECT * FROM u ORDER BY a;
