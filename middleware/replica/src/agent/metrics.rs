//! What a replica counts, and what it means: docs/metrics.md is made of these.

use steeldb_metrics::{Counter, Counters, Gauge, Gauges, Histogram, Histograms, Registry, Seconds};

/// Upper bounds of how many requests, or records, go together.
const BATCHES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

pub(super) struct Metrics {
    pub build: Gauges,
    pub instance: Gauge,
    pub batches: Counter,
    pub batch_requests: Histogram,
    pub requests: Counters,
    pub pending_requests: Gauge,
    pub refused_requests: Counters,
    pub view: Gauge,
    pub regency: Gauge,
    pub leader: Gauge,
    pub regency_changes: Counter,
    pub misbehaved: Counters,
    pub delivery_age: Seconds,
    pub log_commit: Histogram,
    pub log_records: Histogram,
    pub delivered: Gauge,
    pub issued: Gauge,
    pub applied: Gauge,
    pub behind: Gauge,
    pub open: Gauge,
    pub active: Gauge,
    pub given_up: Gauge,
    pub prepared: Gauge,
    pub waiting_for_permit: Gauge,
    pub sessions: Gauge,
    pub anchors: Gauge,
    pub buffered_bytes: Gauge,
    pub stream_entries: Gauge,
    pub kept_bytes: Gauge,
    pub kept_bulk_bytes: Gauge,
    pub spooled_bytes: Gauges,
    pub votes: Counters,
    pub mismatches: Counters,
    pub commits_applied: Counters,
    pub commit_parts: Histograms,
    pub catch_ups: Counters,
    pub catch_up_failures: Counters,
    pub undone: Counter,
    pub redone: Counter,
    pub diverged: Gauge,
    pub vouches: Gauge,
    pub epoch: Gauge,
    pub master: Gauge,
    pub is_master: Gauge,
    pub terms: Counter,
    pub accusations: Counters,
    pub accusations_now: Gauges,
    pub server_restarts: Counter,
    pub links_up: Gauges,
    pub link_bytes: Counters,
    pub link_frames: Counters,
    pub links: Counters,
    pub link_failures: Counters,
    pub refusals: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Metrics {
        let r = registry;
        Metrics {
            build: r.gauges("steeldb_build_info", "", &["role", "name", "version"], "1; what runs here"),
            instance: r.gauge(
                "steeldb_ordering_instance",
                "",
                "The last consensus instance that is decided here",
            ),
            batches: r.counter("steeldb_ordering_batches_total", "batches", "Decided batches that were delivered"),
            batch_requests: r.histogram(
                "steeldb_ordering_batch_requests",
                "requests",
                &BATCHES,
                "Requests in a decided batch",
            ),
            requests: r.counters(
                "steeldb_ordering_requests_total",
                "requests",
                &["kind"],
                "Ordered requests: begin, commit, abort, rollback, maintain, verify, outcome, depose, move, session_over, membership. A commit or \
                 abort that comes after another outcome of its transaction is counted and does nothing",
            ),
            pending_requests: r.gauge(
                "steeldb_ordering_pending_requests",
                "requests",
                "Requests that wait here to be ordered",
            ),
            refused_requests: r.counters(
                "steeldb_ordering_refused_requests_total",
                "requests",
                &["reason"],
                "Clients' requests that were not taken: repeated (executed before, or of a session that is further), busy, invalid, \
                 other",
            ),
            view: r.gauge("steeldb_ordering_view", "", "The view: counts changes of the membership"),
            regency: r.gauge("steeldb_ordering_regency", "", "The regency in that view"),
            leader: r.gauge("steeldb_ordering_leader", "", "The number of the leader of that regency"),
            regency_changes: r.counter(
                "steeldb_ordering_regency_changes_total",
                "",
                "Regencies that were installed here: the leader was slow or gone, or a view began",
            ),
            misbehaved: r.counters(
                "steeldb_ordering_misbehaved_total",
                "",
                &["replica"],
                "What the replica sent that no correct one does, as the ordering core tells: it is faulty, or has another version or \
                 configuration",
            ),
            delivery_age: r.seconds(
                "steeldb_ordering_delivery_age_seconds",
                "How old the last batch was when it was delivered here, by its leader's clock and this host's: more than a second means \
                 that this replica is behind the order, or a clock is wrong",
            ),
            log_commit: r.latency(
                "steeldb_log_commit_seconds",
                "Writing records to the journal and waiting for the disk: one fsync each",
            ),
            log_records: r.histogram(
                "steeldb_log_commit_records",
                "records",
                &BATCHES,
                "Records that went to the disk together",
            ),
            delivered: r.gauge(
                "steeldb_replica_delivered_position",
                "",
                "Up to where the order is delivered here",
            ),
            issued: r.gauge(
                "steeldb_replica_issued_position",
                "",
                "The highest position whose commit was begun at this replica's PostgreSQL",
            ),
            applied: r.gauge(
                "steeldb_replica_applied_position",
                "",
                "Up to where all commits are applied to this replica's PostgreSQL",
            ),
            behind: r.gauge(
                "steeldb_replica_behind_positions",
                "positions",
                "How far the order is delivered at f + 1 other replicas and not here, by what they last said (every second)",
            ),
            open: r.gauge(
                "steeldb_replica_open_transactions",
                "transactions",
                "Transactions with an ordered BEGIN and no end in the order. One that only read stays until its session's next one",
            ),
            active: r.gauge(
                "steeldb_replica_active_transactions",
                "transactions",
                "Transactions that execute here, are prepared or may be, or whose outcome is not applied",
            ),
            given_up: r.gauge(
                "steeldb_replica_given_up_transactions",
                "transactions",
                "Transactions that this replica has given up and that have no outcome yet",
            ),
            prepared: r.gauge(
                "steeldb_replica_prepared_transactions",
                "transactions",
                "Permits to prepare that are taken: transactions that are prepared, or are about to be",
            ),
            waiting_for_permit: r.gauge(
                "steeldb_replica_waiting_for_permit",
                "transactions",
                "Transactions that wait for such a permit",
            ),
            sessions: r.gauge("steeldb_replica_sessions", "sessions", "Sessions with a backend here"),
            anchors: r.gauge("steeldb_replica_anchors", "", "Backends that hold a snapshot for transactions"),
            buffered_bytes: r.gauge(
                "steeldb_replica_buffered_bytes",
                "bytes",
                "Operations and COPY data held for clients",
            ),
            stream_entries: r.gauge(
                "steeldb_replica_stream_entries",
                "entries",
                "Entries of the master's stream that are held",
            ),
            kept_bytes: r.gauge(
                "steeldb_replica_kept_effects_bytes",
                "bytes",
                "Write sets and scripts kept on disk for replicas that were away",
            ),
            kept_bulk_bytes: r.gauge(
                "steeldb_replica_kept_bulk_bytes",
                "bytes",
                "Those of them that are write sets of bulk transactions",
            ),
            spooled_bytes: r.gauges(
                "steeldb_replica_spooled_bytes",
                "bytes",
                &["what"],
                "Waits on disk, and is gone when it has been used: copy (COPY data for this replica's server), rows (write sets of bulk \
                 transactions that were fetched from a peer)",
            ),
            votes: r.counters(
                "steeldb_replica_votes_total",
                "votes",
                &["kind"],
                "Votes that this replica cast: prepared, or against: mismatch, failed, blocked, expired, walled, gone",
            ),
            mismatches: r.counters(
                "steeldb_replica_mismatches_total",
                "transactions",
                &["class"],
                "Votes of this replica that its own results (h) or its rows (w) differ from what the client was shown or others vouched \
                 for: results, effects",
            ),
            commits_applied: r.counters(
                "steeldb_replica_commits_applied_total",
                "transactions",
                &["how"],
                "Commits applied here: prepared (executed here), rows (taken from a peer as a write set)",
            ),
            commit_parts: r.latencies(
                "steeldb_replica_commit_seconds",
                &["part"],
                "A COMMIT at this replica: execute (from its arrival to the own vote), votes (to a certificate), ordering (from \
                 there to its delivery), apply (to its end in PostgreSQL), and all of it. Parts that did not happen here are left out",
            ),
            catch_ups: r.counters(
                "steeldb_replica_catch_ups_total",
                "transactions",
                &["how"],
                "Committed transactions that had to be fetched from a peer: rows, script (DDL, executed again)",
            ),
            catch_up_failures: r.counters(
                "steeldb_replica_catch_up_failures_total",
                "",
                &["cause"],
                "Attempts at that which failed: rows, script. Some are tried again",
            ),
            undone: r.counter("steeldb_replica_undone_total", "", "Speculations that were undone"),
            redone: r.counter("steeldb_replica_redone_total", "", "Those of them that were begun again"),
            diverged: r.gauge(
                "steeldb_replica_diverged",
                "",
                "1: this replica's data are not those of the others; it vouches for nothing any more",
            ),
            vouches: r.gauge(
                "steeldb_replica_vouches",
                "",
                "1: this replica's votes count. 0: it has diverged, or has lost what it voted for and that is not settled",
            ),
            epoch: r.gauge("steeldb_replica_master_epoch", "", "The master's term, as far as the order is delivered here"),
            master: r.gauge("steeldb_replica_master", "", "The number of the master of that term"),
            is_master: r.gauge("steeldb_replica_is_master", "", "1: this replica is it"),
            terms: r.counter("steeldb_replica_master_terms_total", "", "Terms of masters that began"),
            accusations: r.counters(
                "steeldb_replica_accusations_total",
                "accusations",
                &["accuser", "accused", "cause"],
                "Accusations of the master that this replica made or heard of, each once in a term: silent, no_votes, disproved, \
                 doubted",
            ),
            accusations_now: r.gauges(
                "steeldb_replica_accusations_current",
                "accusations",
                &["accuser", "accused", "cause"],
                "1: that accusation counts at the moment",
            ),
            server_restarts: r.counter(
                "steeldb_replica_server_restarts_total",
                "",
                "How often PostgreSQL ended by itself and was started again",
            ),
            links_up: r.gauges("steeldb_link_up", "", &["peer"], "1: the link with the replica is up"),
            link_bytes: r.counters(
                "steeldb_link_bytes_total",
                "bytes",
                &["peer", "direction"],
                "Bytes of messages over the links with a replica (r1) or a client (c1): sent, received. Without TLS' own",
            ),
            link_frames: r.counters(
                "steeldb_link_messages_total",
                "messages",
                &["peer", "direction"],
                "The messages",
            ),
            links: r.counters(
                "steeldb_link_ups_total",
                "links",
                &["peer"],
                "Links with it that came up: reconnects, but for the first",
            ),
            link_failures: r.counters(
                "steeldb_link_failures_total",
                "",
                &["peer"],
                "Attempts of this process to make such a link that failed: nobody there, or not with the key that is expected",
            ),
            refusals: r.counter(
                "steeldb_link_refusals_total",
                "connections",
                "Connections to this process that were turned away before they were links: no known key, too slow, too many of \
                 one client",
            ),
        }
    }
}
