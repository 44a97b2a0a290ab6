-- Times ascend from one transaction to the next.
CREATE TABLE t (n int PRIMARY KEY, at timestamptz DEFAULT now());
-- run
INSERT INTO t VALUES (1);
INSERT INTO t VALUES (2);
INSERT INTO t VALUES (3);
SELECT array_agg(n ORDER BY at, n) FROM t;
SELECT count(*) FROM t WHERE at > now() - interval '1 hour' AND at <= now();
