CREATE TABLE t (id int, who text DEFAULT current_user, sess text DEFAULT session_user, db text DEFAULT current_database());
-- run
INSERT INTO t (id) VALUES (1);
SELECT who = current_user, sess = session_user, db FROM t;
