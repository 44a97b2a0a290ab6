//! Where a process tells how it is.

use super::text::Text;
use super::{check_address, replica::range};
use serde::{Deserialize, Serialize};
use steeldb_types::limits;

/// The `[metrics]` section of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaMetricsFile {
    /// host:port; nowhere unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Positions that it may be behind and still be ready.
    pub ready_lag_max: u64,
}

impl Default for ReplicaMetricsFile {
    fn default() -> Self {
        ReplicaMetricsFile { listen: None, ready_lag_max: limits::READY_LAG_MAX }
    }
}

/// The `[metrics]` section of a proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyMetricsFile {
    /// host:port; nowhere unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
}

const SECTION: &str = "Metrics for Prometheus (/metrics), whether the process lives (/health) and is ready (/ready), over HTTP.";

fn write_listen(text: &mut Text, listen: Option<String>, example: &str) {
    text.section("[metrics]", SECTION);
    text.optional(
        "Where, host:port. Whoever reaches it can read them: no secrets, no statements, but how busy the cluster is.
         Unless given: nowhere.",
        "listen",
        listen,
        example,
    );
}

/// `taken` is where the process listens already.
fn check_listen(listen: Option<&String>, taken: &str) -> Result<(), (&'static str, String)> {
    let Some(listen) = listen else { return Ok(()) };
    check_address(listen).map_err(|reason| ("metrics.listen", reason))?;
    match listen == taken {
        true => Err(("metrics.listen", format!("{listen} is `listen` as well: it takes a port of its own"))),
        false => Ok(()),
    }
}

impl ReplicaMetricsFile {
    /// Where a replica's are unless told otherwise, when `init` writes its file.
    pub(crate) const LISTEN: &str = "127.0.0.1:9400";

    pub(super) fn check(&self, taken: &str) -> Result<(), (&'static str, String)> {
        check_listen(self.listen.as_ref(), taken)?;
        range("metrics.ready_lag_max", self.ready_lag_max, 0, 1 << 40)
    }

    pub(super) fn write(&self, text: &mut Text) {
        write_listen(text, self.listen.clone(), &format!("\"{}\"", ReplicaMetricsFile::LISTEN));
        text.key(
            "How many positions this replica may be behind the order, delivered or applied, and still be ready.",
            "ready_lag_max",
            i64::try_from(self.ready_lag_max).unwrap_or(i64::MAX),
        );
    }
}

impl ProxyMetricsFile {
    /// Where a proxy's are unless told otherwise, when `init` writes its file.
    pub(crate) const LISTEN: &str = "127.0.0.1:9401";

    pub(super) fn check(&self, taken: &str) -> Result<(), (&'static str, String)> {
        check_listen(self.listen.as_ref(), taken)
    }

    pub(super) fn write(&self, text: &mut Text) {
        write_listen(text, self.listen.clone(), &format!("\"{}\"", ProxyMetricsFile::LISTEN));
    }
}
