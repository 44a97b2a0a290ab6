-- compare: shape (several scripts draw from one sequence)
-- run
INSERT INTO corpus_shared.i (who) VALUES ('serial_3') RETURNING id;
SELECT nextval('corpus_shared.s') > 0;
SELECT currval('corpus_shared.s') = lastval();
INSERT INTO corpus_shared.t (who) VALUES ('serial_3'), ('serial_3') RETURNING id;
