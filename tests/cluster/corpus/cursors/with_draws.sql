CREATE SEQUENCE s;
-- run
BEGIN;
DECLARE c CURSOR FOR SELECT nextval('s') FROM generate_series(1, 10);
FETCH 2 FROM c;
SELECT currval('s');
FETCH 3 FROM c;
CLOSE c;
COMMIT;
SELECT nextval('s');
