CREATE TABLE t (day date, v int) PARTITION BY RANGE (day);
CREATE TABLE t_old PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE t_new PARTITION OF t FOR VALUES FROM ('2024-01-01') TO (MAXVALUE);
-- run
INSERT INTO t SELECT DATE '2023-12-25' + g, g FROM generate_series(0, 14) g;
SELECT (SELECT count(*) FROM t_old), (SELECT count(*) FROM t_new);
UPDATE t SET day = day + 30 WHERE v = 0;
SELECT (SELECT count(*) FROM t_old), (SELECT count(*) FROM t_new);
DELETE FROM t WHERE v % 2 = 1;
SELECT sum(v) FROM t;
