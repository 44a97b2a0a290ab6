CREATE TABLE t (id serial, v int);
CREATE TABLE log (v int);
CREATE RULE note AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (NEW.v);
-- run
INSERT INTO t (v) VALUES (5);
INSERT INTO t (v) VALUES (6), (7);
SELECT v FROM log ORDER BY v;
SELECT count(*) FROM t;
