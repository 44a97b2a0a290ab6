CREATE TABLE t (id int, a timestamptz DEFAULT now(), b timestamp DEFAULT LOCALTIMESTAMP, c date DEFAULT CURRENT_DATE, d time DEFAULT LOCALTIME, e timestamptz DEFAULT CURRENT_TIMESTAMP(0), f date DEFAULT CURRENT_DATE + 1);
-- run
INSERT INTO t (id) VALUES (1), (2);
SELECT count(*), bool_and(a::timestamp = b AND a::date = c AND c + 1 = f AND a::timestamptz(0) = e) FROM t;
