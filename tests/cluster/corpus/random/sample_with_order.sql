-- compare: shape (random values)
CREATE TABLE t (id int PRIMARY KEY);
INSERT INTO t SELECT generate_series(1, 50);
-- run
SELECT id FROM t ORDER BY random(), id LIMIT 5;
INSERT INTO t SELECT 1000 + (random() * 1000)::int;
SELECT count(*) FROM t;
