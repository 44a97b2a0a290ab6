CREATE SEQUENCE s;
-- run
SELECT setval('s', 41);
SELECT nextval('s'), currval('s');
SELECT setval('s', 100, false);
SELECT currval('s'), nextval('s');
SELECT setval('s', 0);
SELECT setval('s', 7, true), nextval('s');
