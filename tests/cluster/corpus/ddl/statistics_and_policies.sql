CREATE TABLE t (a int, b int, owner text DEFAULT current_user);
CREATE STATISTICS s (dependencies) ON a, b FROM t;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON t USING (owner = current_user);
INSERT INTO t (a, b) VALUES (1, 1);
SELECT a, b FROM t;
DROP STATISTICS s;
