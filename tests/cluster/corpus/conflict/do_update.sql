CREATE TABLE t (k int PRIMARY KEY, n int DEFAULT 1, at timestamptz DEFAULT now());
-- run
INSERT INTO t (k) VALUES (1), (2);
INSERT INTO t (k) VALUES (1), (3) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n, at = now() RETURNING k, n;
INSERT INTO t (k, n) VALUES (1, 100) ON CONFLICT (k) DO UPDATE SET n = excluded.n WHERE t.n > 50;
INSERT INTO t (k) VALUES (5), (5) ON CONFLICT (k) DO UPDATE SET n = 9;
SELECT k, n FROM t ORDER BY k;
