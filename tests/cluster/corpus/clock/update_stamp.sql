CREATE TABLE t (id int PRIMARY KEY, n int, changed timestamptz);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.changed := now(); RETURN NEW; END';
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
-- run
INSERT INTO t VALUES (1, 1), (2, 2);
UPDATE t SET n = n + 1 WHERE id = 1;
SELECT (SELECT changed FROM t WHERE id = 1) > (SELECT changed FROM t WHERE id = 2), count(changed) FROM t;
