-- Transactions in doubt: which transaction this is, so that its outcome can be asked for when its COMMIT was not answered.

-- The agent sets the parameter at the transaction's start, on every replica alike. A client may set it, too: then it has
-- told itself what it wanted to hear.
CREATE FUNCTION steeldb.current_tx() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('steeldb.tx', true), '');
COMMENT ON FUNCTION steeldb.current_tx() IS 'The running transaction, for steeldb.outcome().';

-- steeldb.outcome() is no function of the database: the answer is in the order, and the proxy asks for it. A function of
-- that name here would take part in the resolution of clients' own.
