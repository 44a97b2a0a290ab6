-- What looks like a keyword inside quotes is none.
CREATE TABLE t (id int, a text DEFAULT 'CURRENT_DATE', b text DEFAULT 'now()', c text DEFAULT 'nextval(''s'')');
-- run
INSERT INTO t (id) VALUES (1);
SELECT * FROM t;
