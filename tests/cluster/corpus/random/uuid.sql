-- compare: shape (random values)
CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), v int);
-- run
INSERT INTO t (v) VALUES (1), (2), (3) RETURNING id;
SELECT gen_random_uuid();
INSERT INTO t (id, v) VALUES (gen_random_uuid(), 4) RETURNING id;
SELECT count(*) FROM t;
