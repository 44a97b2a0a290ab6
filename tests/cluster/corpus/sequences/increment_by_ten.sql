CREATE SEQUENCE s INCREMENT BY 10 START WITH 100;
-- run
SELECT nextval('s') FROM generate_series(1, 4);
SELECT currval('s');
