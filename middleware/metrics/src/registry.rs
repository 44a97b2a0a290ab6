//! Metrics, each registered with what it means.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Metric;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up, from 0 at the process's start.
pub type Counter = prometheus_client::metrics::counter::Counter;

/// A whole number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;

/// Seconds that go up and down.
pub type Seconds = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;

/// How often which values were seen.
pub type Histogram = prometheus_client::metrics::histogram::Histogram;

type Labels = Vec<(&'static str, String)>;

/// Upper bounds of latencies, seconds: from a write to a fast disk to the longest wait of a client.
pub const LATENCIES_S: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    60.0,
];

/// A metric as documented.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// As exported; a histogram's is followed by `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What one of it is; empty for a mere number.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

/// The metrics of one process.
#[derive(Default)]
pub struct Registry {
    inner: prometheus_client::registry::Registry,
    definitions: Vec<Definition>,
}

impl Registry {
    /// A counter; `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, unit: &'static str, meaning: &'static str) -> Counter {
        let counter = Counter::default();
        self.register((name, "counter", unit, &[], meaning), counter.clone());
        counter
    }

    /// A counter for each value of its labels; `name` ends in `_total`. Whoever counts sees to it that the values are few.
    pub fn counters(
        &mut self,
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Counters {
        let counters = Counters { labels, family: Family::default() };
        self.register((name, "counter", unit, labels, meaning), counters.family.clone());
        counters
    }

    /// A gauge.
    pub fn gauge(&mut self, name: &'static str, unit: &'static str, meaning: &'static str) -> Gauge {
        let gauge = Gauge::default();
        self.register((name, "gauge", unit, &[], meaning), gauge.clone());
        gauge
    }

    /// A gauge of seconds.
    pub fn seconds(&mut self, name: &'static str, meaning: &'static str) -> Seconds {
        let gauge = Seconds::default();
        self.register((name, "gauge", "seconds", &[], meaning), gauge.clone());
        gauge
    }

    /// A gauge for each value of its labels.
    pub fn gauges(
        &mut self,
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Gauges {
        let gauges = Gauges { labels, family: Family::default() };
        self.register((name, "gauge", unit, labels, meaning), gauges.family.clone());
        gauges
    }

    /// A histogram of seconds, in [`LATENCIES_S`].
    pub fn latency(&mut self, name: &'static str, meaning: &'static str) -> Histogram {
        self.histogram(name, "seconds", &LATENCIES_S, meaning)
    }

    /// A histogram with these upper bounds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        unit: &'static str,
        bounds: &[f64],
        meaning: &'static str,
    ) -> Histogram {
        let histogram = Histogram::new(bounds.iter().copied());
        self.register((name, "histogram", unit, &[], meaning), histogram.clone());
        histogram
    }

    /// A histogram of seconds for each value of its labels.
    pub fn latencies(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
    ) -> Histograms {
        let new: fn() -> Histogram = || Histogram::new(LATENCIES_S);
        let histograms = Histograms { labels, family: Family::new_with_constructor(new) };
        self.register((name, "histogram", "seconds", labels, meaning), histograms.family.clone());
        histograms
    }

    /// All metrics, in the order in which they were registered.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// What they are now, in OpenMetrics' text format. One with labels is left out until it has a value.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.inner);
        text
    }

    fn register(
        &mut self,
        (name, kind, unit, labels, meaning): (
            &'static str,
            &'static str,
            &'static str,
            &'static [&'static str],
            &'static str,
        ),
        metric: impl Metric,
    ) {
        // The format adds it by itself.
        let base = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
        let exported = if kind == "counter" { format!("{base}_total") } else { name.to_string() };
        self.inner.register(base, meaning.trim_end_matches('.'), metric);
        self.definitions.push(Definition { name: exported, kind, unit, labels, meaning });
    }
}

fn labelled(names: &'static [&'static str], values: &[&str]) -> Labels {
    names.iter().zip(values).map(|(name, value)| (*name, (*value).to_string())).collect()
}

/// Counters by their labels.
#[derive(Clone)]
pub struct Counters {
    labels: &'static [&'static str],
    family: Family<Labels, Counter>,
}

impl Counters {
    /// The one with these values, in the order of the labels.
    pub fn with(&self, values: &[&str]) -> Counter {
        self.family.get_or_create_owned(&labelled(self.labels, values))
    }
}

/// Gauges by their labels.
#[derive(Clone)]
pub struct Gauges {
    labels: &'static [&'static str],
    family: Family<Labels, Gauge>,
}

impl Gauges {
    /// The one with these values, in the order of the labels.
    pub fn with(&self, values: &[&str]) -> Gauge {
        self.family.get_or_create_owned(&labelled(self.labels, values))
    }

    /// Forgets all values.
    pub fn clear(&self) {
        self.family.clear();
    }
}

/// Histograms by their labels.
#[derive(Clone)]
pub struct Histograms {
    labels: &'static [&'static str],
    family: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Histograms {
    /// The one with these values, in the order of the labels.
    pub fn with(&self, values: &[&str]) -> Histogram {
        self.family.get_or_create_owned(&labelled(self.labels, values))
    }
}

/// Makes a counter show what is counted elsewhere.
pub fn mirror(counter: &Counter, counted: u64) {
    counter.inner().store(counted, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_exported_under_its_documented_name() {
        let mut registry = Registry::default();
        let counter = registry.counter("steeldb_a_total", "", "Things.");
        let counters = registry.counters("steeldb_b_total", "bytes", &["peer", "way"], "Bytes.");
        let gauge = registry.gauge("steeldb_c", "", "Now.");
        let latency = registry.latency("steeldb_d_seconds", "How long.");
        counter.inc();
        mirror(&counters.with(&["r1", "in"]), 70);
        gauge.set(-3);
        latency.observe(0.002);
        let text = registry.text();
        for line in [
            "# TYPE steeldb_a counter",
            "# HELP steeldb_a Things.",
            "steeldb_a_total 1",
            "steeldb_b_total{peer=\"r1\",way=\"in\"} 70",
            "steeldb_c -3",
            "steeldb_d_seconds_bucket{le=\"0.0025\"} 1",
            "steeldb_d_seconds_count 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        let names: Vec<&str> = registry.definitions().iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["steeldb_a_total", "steeldb_b_total", "steeldb_c", "steeldb_d_seconds"]);
    }

    #[test]
    fn a_label_is_no_way_to_write_lines_of_ones_own() {
        let mut registry = Registry::default();
        registry.counters("steeldb_a_total", "", &["kind"], "Things.").with(&["x\"} 1\nevil 2"]).inc();
        assert!(!registry.text().contains("\nevil"), "{}", registry.text());
    }
}
