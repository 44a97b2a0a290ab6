CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, v int);
-- run
INSERT INTO t (v) SELECT g FROM generate_series(10, 1, -1) g ORDER BY g;
SELECT * FROM t ORDER BY id;
