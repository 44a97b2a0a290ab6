CREATE SEQUENCE s START 5;
SELECT nextval('s');
ALTER SEQUENCE s RENAME TO r;
SELECT nextval('r'), currval('r'), lastval();
SELECT nextval('s');
DROP SEQUENCE r;
SELECT nextval('r');
CREATE SEQUENCE r;
SELECT nextval('r');
