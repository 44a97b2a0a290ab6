-- compare: shape (several scripts draw from one sequence)
-- run
COPY corpus_shared.t (who) FROM STDIN;
copied
copied
copied
\.
COPY corpus_shared.i (who) FROM STDIN;
copied
\.
SELECT count(*) >= 3 FROM corpus_shared.t WHERE who = 'copied';
