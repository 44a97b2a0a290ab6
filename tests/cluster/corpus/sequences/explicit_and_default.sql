-- A value given beside one drawn: the sequence does not notice.
CREATE TABLE t (id serial PRIMARY KEY, v int);
-- run
INSERT INTO t VALUES (2, 0);
INSERT INTO t (v) VALUES (1) RETURNING id;
INSERT INTO t (v) VALUES (2) RETURNING id;
INSERT INTO t (v) VALUES (3) RETURNING id;
INSERT INTO t VALUES (DEFAULT, 4) RETURNING id;
SELECT * FROM t ORDER BY id;
