//! What a process tells whoever watches it: metrics in the text format of OpenMetrics, which Prometheus reads, whether
//! it lives, and whether it is ready. Over HTTP, to anybody who can reach the port: so nothing here is secret, names
//! statements, or quotes what clients sent.
//!
//! - [`Registry`]: metrics and their documentation, which is theirs alone: docs/metrics.md is compared with it.
//! - [`Endpoint`]: the port. Connections, their time and what they may send are bounded.
//! - [`Source`]: what is told there.
//!
//! Protocol cores know nothing of this: shells count.

mod endpoint;
mod registry;

pub use endpoint::{Endpoint, Identity, Readiness, Source};
pub use registry::{
    Counter, Counters, Definition, Gauge, Gauges, Histogram, Histograms, LATENCIES_S, Registry, Seconds,
    mirror,
};
