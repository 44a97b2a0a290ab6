-- compare: shape (inside a transaction all clocks stand still)
CREATE TABLE t (a timestamptz, b timestamptz, c text);
-- run
INSERT INTO t VALUES (clock_timestamp(), statement_timestamp(), timeofday());
SELECT a, b, c FROM t;
SELECT clock_timestamp() - now();
