CREATE SEQUENCE s;
-- run
WITH d AS MATERIALIZED (SELECT nextval('s') AS n) SELECT a.n = b.n FROM d a, d b;
SELECT currval('s');
