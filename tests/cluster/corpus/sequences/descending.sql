CREATE SEQUENCE s INCREMENT BY -3 MINVALUE -10 MAXVALUE 5 START WITH 5;
-- run
SELECT nextval('s') FROM generate_series(1, 6);
SELECT nextval('s');
SELECT currval('s');
