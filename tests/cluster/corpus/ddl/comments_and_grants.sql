CREATE TABLE t (a int);
COMMENT ON TABLE t IS 'a table';
COMMENT ON COLUMN t.a IS 'a column';
SELECT obj_description('t'::regclass), col_description('t'::regclass, 1);
GRANT SELECT ON t TO PUBLIC;
SELECT has_table_privilege('t', 'SELECT');
REVOKE ALL ON t FROM PUBLIC;
INSERT INTO t VALUES (1);
