CREATE TABLE t (id int PRIMARY KEY, u uuid, n inet, m macaddr, b bit(4), v varbit);
-- run
INSERT INTO t VALUES (1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '10.0.0.1/8', '08:00:2b:01:02:03', B'1010', B'1');
SELECT * FROM t;
SELECT network(n), host(n), b & B'0110', b || v, set_masklen(n, 16) FROM t;
