CREATE SEQUENCE s MINVALUE 1 MAXVALUE 3 CYCLE;
-- run
SELECT array_agg(nextval('s')) FROM generate_series(1, 8);
SELECT nextval('s');
