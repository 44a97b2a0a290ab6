CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE t (id int PRIMARY KEY, m mood);
-- run
INSERT INTO t VALUES (1, 'happy'), (2, 'sad'), (3, 'ok');
SELECT id, m FROM t ORDER BY m;
SELECT max(m), m > 'sad' FROM t GROUP BY m ORDER BY m;
INSERT INTO t VALUES (4, 'furious');
SELECT enum_range(NULL::mood), 'ok'::mood::text;
