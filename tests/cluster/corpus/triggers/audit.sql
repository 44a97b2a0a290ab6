CREATE TABLE t (id int PRIMARY KEY, n int);
CREATE TABLE log (seq serial, op text, id int, was int, is_now int, at timestamptz DEFAULT now());
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (op, id, was, is_now) VALUES (TG_OP, coalesce(NEW.id, OLD.id), OLD.n, NEW.n);
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION audit();
-- run
INSERT INTO t VALUES (1, 10), (2, 20);
UPDATE t SET n = n + 1 WHERE id = 1;
DELETE FROM t WHERE id = 2;
SELECT seq, op, id, was, is_now, at IS NOT NULL FROM log ORDER BY seq;
