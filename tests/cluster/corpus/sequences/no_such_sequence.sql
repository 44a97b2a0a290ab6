CREATE TABLE plain (a int);
-- run
SELECT nextval('nowhere');
SELECT nextval('plain');
SELECT currval('nowhere');
SELECT setval('plain', 1);
SELECT nextval(NULL);
