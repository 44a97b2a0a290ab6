CREATE TABLE t (id int PRIMARY KEY, v text, l int GENERATED ALWAYS AS (length(v)) STORED);
CREATE INDEX ON t (l);
-- run
INSERT INTO t SELECT g, repeat('a', g) FROM generate_series(1, 10) g;
SELECT id FROM t WHERE l > 7 ORDER BY id;
DELETE FROM t WHERE l < 5;
SELECT sum(l) FROM t;
