-- A client may seed for itself.
-- run
BEGIN;
SELECT setseed(0.5);
SELECT random(), random();
COMMIT;
