CREATE TABLE t (k int PRIMARY KEY, v text);
-- run
CREATE TEMP TABLE staging (k int, v text, n serial);
COPY staging (k, v) FROM STDIN;
1	one
2	two
2	again
3	\N
\.
INSERT INTO t SELECT DISTINCT ON (k) k, v FROM staging ORDER BY k, n ON CONFLICT DO NOTHING;
SELECT count(*) FROM staging;
COPY (SELECT k, v, n FROM staging ORDER BY n) TO STDOUT;
COPY pg_temp.staging (k, v) FROM STDIN;
x	bad
\.
SELECT count(*) FROM staging;
