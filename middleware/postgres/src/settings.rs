//! What a private server's configuration says, and why. Settings that could make two replicas answer differently are
//! pinned (design, section 5); the rest is sized by [`Settings`].

use std::fmt::Write as _;
use steeldb_types::limits;

/// The sizes a private server is configured with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Backends at once: client sessions, anchors and the agent's own connections.
    pub max_connections: u32,
    /// Prepared transactions at once; the agent hands out as many permits (B6).
    pub max_prepared_transactions: u32,
    /// Databases that can be decoded at once: each has one slot and one walsender.
    pub max_replication_slots: u32,
    /// The buffer cache, MiB.
    pub shared_buffers_mb: u32,
    /// Whether commits survive a power failure. Off is for tests and throw-away demonstrations only: a replica that
    /// loses what it voted for is faulty (rule 13).
    pub fsync: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let sessions = limits::SESSIONS_PER_CLIENT_MAX as u32;
        Settings {
            max_connections: sessions + limits::ANCHORS_MAX as u32 + 36,
            max_prepared_transactions: sessions + limits::PREPARED_MARGIN as u32,
            max_replication_slots: 16,
            shared_buffers_mb: 128,
            fsync: true,
        }
    }
}

impl Settings {
    /// The text of `steeldb.conf`, which postgresql.conf includes last.
    pub(crate) fn render(&self, socket_dir: &str) -> String {
        let mut text = String::from(
            "# Written by SteelDB at every start; changes made here are lost.\n# Comments say why a value is what it is.\n",
        );
        let mut section = |why: &str, lines: &[(&str, String)]| {
            let _ = write!(text, "\n# {why}\n");
            for (name, value) in lines {
                let _ = writeln!(text, "{name} = {}", quoted(value));
            }
        };
        let on = |value: bool| if value { "on" } else { "off" }.to_string();
        section(
            "Only the agent reaches this server: no network, one socket in a directory of mode 0700.",
            &[
                ("listen_addresses", String::new()),
                ("port", crate::connection::PORT.to_string()),
                ("unix_socket_directories", socket_dir.to_string()),
                ("unix_socket_permissions", "0700".to_string()),
            ],
        );
        section(
            "Sizes.",
            &[
                ("max_connections", self.max_connections.to_string()),
                ("max_prepared_transactions", self.max_prepared_transactions.to_string()),
                ("max_replication_slots", self.max_replication_slots.to_string()),
                ("max_wal_senders", self.max_replication_slots.to_string()),
                ("shared_buffers", format!("{}MB", self.shared_buffers_mb)),
                ("max_locks_per_transaction", "256".to_string()),
                ("max_wal_size", "2GB".to_string()),
                ("checkpoint_timeout", "15min".to_string()),
            ],
        );
        section(
            "Durable before dependent (A7): a vote follows PREPARE, so PREPARE must be on disk.",
            &[
                ("fsync", on(self.fsync)),
                ("full_page_writes", on(self.fsync)),
                ("synchronous_commit", on(true)),
            ],
        );
        section(
            "Write sets come from two-phase logical decoding (rule 6). The reader is the agent, with which this server dies, so a silent walsender is never timed out.",
            &[("wal_level", "logical".to_string()), ("wal_sender_timeout", "0".to_string())],
        );
        section(
            "The same statement must do the same on every replica: no plan or row order that depends on load.",
            &[
                ("max_parallel_workers_per_gather", "0".to_string()),
                ("synchronize_seqscans", on(false)),
                ("jit", on(false)),
                ("geqo_seed", "0".to_string()),
            ],
        );
        section(
            "Values are compared as text, messages by their words.",
            &[
                ("timezone", "UTC".to_string()),
                ("log_timezone", "UTC".to_string()),
                ("datestyle", "ISO, MDY".to_string()),
                ("intervalstyle", "postgres".to_string()),
                ("extra_float_digits", "1".to_string()),
                ("bytea_output", "hex".to_string()),
                ("lc_messages", "C".to_string()),
                ("lc_monetary", "C".to_string()),
                ("lc_numeric", "C".to_string()),
                ("lc_time", "C".to_string()),
            ],
        );
        section(
            "Commit times are local, so nothing may read them.",
            &[("track_commit_timestamp", on(false)), ("old_snapshot_threshold", "-1".to_string())],
        );
        section(
            "No error may depend on how long something took here (B8); the agent ends what must end.",
            &[
                ("statement_timeout", "0".to_string()),
                ("lock_timeout", "0".to_string()),
                ("idle_in_transaction_session_timeout", "0".to_string()),
                ("idle_session_timeout", "0".to_string()),
            ],
        );
        section("Dead rows are ours to clean.", &[("autovacuum", on(true))]);
        section(
            "Errors are the clients' and are answered to them; parameters never reach the log.",
            &[
                ("logging_collector", on(false)),
                ("log_destination", "stderr".to_string()),
                ("log_min_messages", "warning".to_string()),
                ("log_min_error_statement", "panic".to_string()),
                ("log_line_prefix", "%m [%p] %u@%d ".to_string()),
                ("log_parameter_max_length", "0".to_string()),
                ("log_parameter_max_length_on_error", "0".to_string()),
            ],
        );
        text
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// The text of pg_hba.conf: whoever can reach the socket directory is the agent, and connects as whom it serves.
pub(crate) fn host_based_access() -> String {
    format!(
        "# Written by SteelDB at every start. The socket's directory, of mode 0700, is the authentication.\n\
         local all all trust\n\
         local replication {} trust\n",
        crate::AGENT_ROLE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_path_stays_inside_its_value() {
        let text = Settings::default().render("/tmp/it's");
        assert!(text.contains("unix_socket_directories = '/tmp/it''s'\n"));
        assert!(text.contains("max_prepared_transactions = '216'\n"));
        assert!(text.contains("listen_addresses = ''\n"));
    }
}
