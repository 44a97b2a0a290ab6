CREATE TABLE t (id int, at timestamptz);
ALTER TABLE t ALTER at SET DEFAULT CURRENT_TIMESTAMP;
INSERT INTO t (id) VALUES (1);
ALTER TABLE t ALTER at SET DEFAULT now() - interval '1 day';
INSERT INTO t (id) VALUES (2);
SELECT id, at <= now(), at > now() - interval '1 hour' FROM t ORDER BY id;
