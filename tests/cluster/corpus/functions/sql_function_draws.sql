CREATE SEQUENCE s;
CREATE FUNCTION fresh() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('s')$$;
-- run
SELECT fresh(), fresh();
SELECT sum(fresh()) FROM generate_series(1, 4);
SELECT currval('s');
