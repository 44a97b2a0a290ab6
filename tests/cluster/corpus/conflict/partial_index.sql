CREATE TABLE t (k int, live bool, v int);
CREATE UNIQUE INDEX ON t (k) WHERE live;
-- run
INSERT INTO t VALUES (1, true, 1), (1, false, 2), (1, false, 3);
INSERT INTO t VALUES (1, true, 4) ON CONFLICT (k) WHERE live DO UPDATE SET v = 40;
INSERT INTO t VALUES (1, true, 5);
SELECT * FROM t ORDER BY v;
