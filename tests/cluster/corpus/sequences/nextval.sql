CREATE SEQUENCE s;
-- run
SELECT nextval('s');
SELECT nextval('s'), nextval('s');
SELECT currval('s');
SELECT sum(nextval('s')) FROM generate_series(1, 10);
SELECT nextval('s'::regclass);
