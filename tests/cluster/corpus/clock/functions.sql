CREATE FUNCTION age_of(timestamptz) RETURNS interval LANGUAGE sql STABLE AS 'SELECT now() - $1';
CREATE FUNCTION stamp() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN RETURN now(); END';
-- run
SELECT age_of(now()), stamp() = now();
SELECT age_of(now() - interval '1 day') = interval '1 day';
