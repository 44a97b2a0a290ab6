CREATE TABLE t (id int, at timestamptz);
CREATE VIEW recent AS SELECT id FROM t WHERE at > now() - interval '1 minute';
CREATE VIEW stamped AS SELECT id, CURRENT_TIMESTAMP AS seen FROM t;
-- run
INSERT INTO t VALUES (1, now()), (2, now() - interval '1 year');
SELECT * FROM recent;
SELECT count(*) FROM stamped WHERE seen = now();
