CREATE TABLE a (id int);
CREATE TABLE b (id int, r float8, u uuid, at timestamptz);
INSERT INTO a SELECT generate_series(1, 5);
-- compare: shape
-- run
INSERT INTO b SELECT id, random(), gen_random_uuid(), clock_timestamp() FROM a ORDER BY id RETURNING id, u;
SELECT count(DISTINCT r), count(DISTINCT u), count(DISTINCT at) = 1 FROM b;
INSERT INTO b SELECT id, r, u, now() FROM b WHERE r < 2;
SELECT count(*) FROM b;
