CREATE SEQUENCE fresh;
-- run
SELECT currval('fresh');
SELECT nextval('fresh');
SELECT currval('fresh');
