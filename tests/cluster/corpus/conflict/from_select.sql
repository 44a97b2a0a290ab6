CREATE TABLE source (k int, v int);
CREATE TABLE t (k int PRIMARY KEY, v int, seen int DEFAULT 1);
INSERT INTO source SELECT i, i * 10 FROM generate_series(1, 10) i;
INSERT INTO t SELECT i, 0 FROM generate_series(1, 5) i;
-- run
INSERT INTO t SELECT k, v FROM source ON CONFLICT (k) DO UPDATE SET v = excluded.v, seen = t.seen + 1;
SELECT k, v, seen FROM t ORDER BY k;
WITH gone AS (DELETE FROM t WHERE k > 8 RETURNING k, v) INSERT INTO t SELECT k - 8, v FROM gone ON CONFLICT (k) DO UPDATE SET v = t.v + excluded.v RETURNING k, v;
