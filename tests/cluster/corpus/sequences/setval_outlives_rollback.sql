-- As nextval, setval is not undone.
CREATE SEQUENCE s;
-- run
BEGIN;
SELECT setval('s', 50);
SELECT nextval('s');
ROLLBACK;
SELECT nextval('s');
