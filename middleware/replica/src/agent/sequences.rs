//! Sequences at a new master. Values that the master before drew for transactions that are still open, or never were
//! finished, may not have reached this replica: it starts a little further on. PostgreSQL leaves such gaps, too, when it
//! restarts after a crash.

use crate::scheduler::Event;
use std::path::PathBuf;
use std::time::Duration;
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError};
use tokio::sync::mpsc;

/// How long to wait before a failure is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Each sequence goes on by a thousand values, or by a thousandth of what it has left if that is less. One that is locked
/// is being changed or dropped by a transaction that is not committed: nothing was drawn from it since. The search_path is
/// set so that no operator of a client's stands in for a built-in one.
const SKIP_SQL: &str = "
    SET search_path = pg_catalog;
    SET lock_timeout = '1s';
    DO $skip$
    DECLARE
        item pg_catalog.record;
        reached pg_catalog.numeric;
        room pg_catalog.numeric;
    BEGIN
        FOR item IN
            SELECT s.seqrelid, s.seqincrement, n.nspname, c.relname,
                   CASE WHEN s.seqincrement > 0 THEN s.seqmax ELSE s.seqmin END AS bound
            FROM pg_catalog.pg_sequence s
            JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname <> 'steeldb' AND c.relpersistence = 'p'
        LOOP
            BEGIN
                -- Not by pg_sequence_last_value: that is NULL, as of a new one, where others' draws have set it to what comes next.
                EXECUTE pg_catalog.format(
                    'SELECT last_value::numeric - CASE WHEN is_called THEN 0 ELSE %s END FROM %I.%I',
                    item.seqincrement, item.nspname, item.relname) INTO reached;
                -- What committed transactions drew may never have reached this server's sequence.
                IF item.seqincrement > 0 THEN
                    SELECT greatest(reached, pg_catalog.max(d.greatest)) INTO reached
                    FROM steeldb.draw d WHERE d.sequence = steeldb.relation_name(item.seqrelid);
                ELSE
                    SELECT least(reached, pg_catalog.min(d.least)) INTO reached
                    FROM steeldb.draw d WHERE d.sequence = steeldb.relation_name(item.seqrelid);
                END IF;
                room := pg_catalog.trunc((item.bound - reached) / item.seqincrement);
                room := least(1000, pg_catalog.trunc(room / 1000));
                IF room > 0 THEN
                    PERFORM pg_catalog.setval(item.seqrelid::pg_catalog.regclass,
                                              (reached + room * item.seqincrement)::pg_catalog.int8);
                END IF;
            EXCEPTION WHEN lock_not_available OR undefined_table OR undefined_object THEN
                NULL;
            END;
        END LOOP;
    END
    $skip$";

/// Puts the sequences of a database past what earlier masters may have drawn, and says when it is done.
pub(super) async fn skip(socket_dir: PathBuf, database: String, events: mpsc::UnboundedSender<Event>) {
    while let Err(error) = try_skip(&socket_dir, &database).await {
        if events.is_closed() {
            return;
        }
        tracing::warn!(database, %error, "sequences cannot be put past what was drawn before; tried again");
        tokio::time::sleep(PAUSE).await;
    }
    let _ = events.send(Event::SequencesSkipped { database });
}

async fn try_skip(socket_dir: &std::path::Path, database: &str) -> Result<(), BackendError> {
    let mut backend = Backend::connect(socket_dir, database, AGENT_ROLE, &[]).await?;
    backend.simple(SKIP_SQL).await.map(|_| ())
}
