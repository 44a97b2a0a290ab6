CREATE TABLE t (a int);
-- run
SELECT ctid FROM t;
SELECT xmin, a FROM t;
DELETE FROM t WHERE ctid = '(0,1)';
SELECT t.xmax, t.cmin, t.cmax FROM t;
