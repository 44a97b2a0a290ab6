CREATE TABLE t (id int PRIMARY KEY, made timestamptz, changed timestamptz, chance float8, token uuid);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN NEW.made := now(); NEW.token := gen_random_uuid(); END IF;
    NEW.changed := clock_timestamp(); NEW.chance := random();
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
-- compare: shape
-- run
INSERT INTO t (id) VALUES (1), (2), (3) RETURNING made, token, chance;
SELECT count(DISTINCT token), count(DISTINCT chance), count(DISTINCT made) FROM t;
UPDATE t SET id = id + 10 RETURNING id, changed, chance;
SELECT bool_and(chance BETWEEN 0 AND 1), bool_and(changed >= made) FROM t;
