CREATE TABLE t (id serial PRIMARY KEY, v int);
-- run
INSERT INTO t (v) VALUES (1), (2), (3) RETURNING *;
UPDATE t SET v = v * 10 WHERE id > 1 RETURNING id, v, v / 10 AS before;
DELETE FROM t WHERE id = 2 RETURNING t.*;
INSERT INTO t (v) VALUES (9) RETURNING id + 0 AS shown, now() IS NOT NULL;
