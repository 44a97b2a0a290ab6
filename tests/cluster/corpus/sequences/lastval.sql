CREATE SEQUENCE a START 10;
CREATE SEQUENCE b START 20;
-- run
SELECT nextval('a'), nextval('b'), lastval();
SELECT nextval('a'), lastval();
SELECT setval('b', 99), lastval(), currval('b');
SELECT currval('a'), currval('b'), lastval();
