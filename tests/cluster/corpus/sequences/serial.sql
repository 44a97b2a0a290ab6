-- SERIAL gives consecutive values, shown by RETURNING and by currval.
CREATE TABLE t (id serial PRIMARY KEY, v text);
-- run
INSERT INTO t (v) VALUES ('a'), ('b') RETURNING id, v;
SELECT currval('t_id_seq'), lastval();
INSERT INTO t (v) SELECT 'c' || g FROM generate_series(1, 5) g RETURNING id;
SELECT * FROM t ORDER BY id;
