CREATE SEQUENCE "Odd Name""s";
-- run
SELECT nextval('"Odd Name""s"');
SELECT pg_catalog.nextval('"Odd Name""s"');
SELECT currval('"Odd Name""s"');
