CREATE TABLE t (id int PRIMARY KEY, p jsonb, n numeric);
-- run
INSERT INTO t VALUES (1, '{"a": 1}', 2.5) RETURNING p -> 'a', n * 2, (SELECT count(*) FROM t);
UPDATE t SET p = p || '{"b": 2}' RETURNING jsonb_pretty(p) LIKE '%b%', p;
DELETE FROM t RETURNING (SELECT max(id) FROM t);
