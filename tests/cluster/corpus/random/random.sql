-- compare: shape (random values)
CREATE TABLE t (id int PRIMARY KEY, r float8);
-- run
INSERT INTO t SELECT g, random() FROM generate_series(1, 20) g;
SELECT r FROM t ORDER BY id;
UPDATE t SET r = random() * id WHERE id % 2 = 0;
SELECT random(), random();
