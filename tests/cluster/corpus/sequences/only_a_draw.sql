-- A transaction that writes nothing but draws.
CREATE SEQUENCE s;
-- run
BEGIN;
SELECT nextval('s');
COMMIT;
BEGIN;
SELECT nextval('s');
SELECT nextval('s');
COMMIT;
SELECT currval('s');
