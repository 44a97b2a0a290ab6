CREATE SEQUENCE s;
CREATE FUNCTION fresh() RETURNS bigint LANGUAGE sql RETURN nextval('s');
CREATE FUNCTION stamped(int) RETURNS text LANGUAGE sql STABLE RETURN $1 || ' ' || (now() = CURRENT_TIMESTAMP);
-- run
SELECT fresh(), stamped(3);
SELECT fresh();
