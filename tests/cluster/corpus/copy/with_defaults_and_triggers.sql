CREATE TABLE t (id serial, v int, at timestamptz DEFAULT now(), u uuid DEFAULT gen_random_uuid(), doubled int);
CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.doubled := NEW.v * 2; RETURN NEW; END';
CREATE TRIGGER twice BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION twice();
-- run
COPY t (v) FROM STDIN;
1
2
3
\.
SELECT id, v, doubled, at IS NOT NULL FROM t ORDER BY id;
SELECT count(DISTINCT u), count(DISTINCT at) FROM t;
