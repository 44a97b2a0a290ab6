CREATE SEQUENCE s MAXVALUE 2;
-- run
SELECT nextval('s');
SELECT nextval('s');
SELECT nextval('s');
BEGIN;
SELECT nextval('s');
ROLLBACK;
SELECT setval('s', 1, false);
SELECT nextval('s');
