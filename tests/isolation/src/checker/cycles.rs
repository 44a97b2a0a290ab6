//! Looking for cycles, from the gravest kind on, and naming them.

use super::anomaly::{Anomaly, Kind};
use super::edges::{Edge, EdgeKind, seconds};
use super::graph::{Graph, Step};
use super::versions::Versions;
use crate::history::{History, Operation, Outcome, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// Cycles of each kind that are told of.
const CYCLES_PER_KIND_MAX: usize = 10;

/// Dependencies of one component from which a way back is looked for.
const STARTS_PER_COMPONENT_MAX: usize = 200;

/// Values of a list and operations of a transaction that are shown.
const SHOWN_MAX: usize = 6;

/// Adds the anomalies that are cycles.
pub(super) fn find<'a>(
    history: &'a History,
    versions: &Versions<'a>,
    edges: &[Edge<'a>],
    anomalies: &mut Vec<Anomaly>,
) {
    use EdgeKind::{ReadWrite, RealTime, WriteRead, WriteWrite};
    let count = history.transactions().len();
    let mut search = Search { edges, found: BTreeMap::new() };
    search.look(&Graph::new(count, edges, |kind| kind == WriteWrite), |kind| kind == WriteWrite);
    let reads = |kind| matches!(kind, WriteWrite | WriteRead);
    search.look(&Graph::new(count, edges, reads), |kind| kind == WriteRead);
    let mut graph = Graph::new(count, edges, |kind| kind != RealTime);
    search.look(&graph, |kind| kind == ReadWrite);
    graph.add_real_time(history, versions.effective());
    search.look(&graph, |_| true);
    for (kind, cycles) in search.found {
        let mut cycles: Vec<_> = cycles.into_values().collect();
        cycles.sort_by_key(Vec::len);
        let cycles = cycles.iter().take(CYCLES_PER_KIND_MAX);
        anomalies.extend(cycles.map(|cycle| explain(history, kind, cycle)));
    }
}

struct Search<'h, 'e> {
    edges: &'e [Edge<'h>],
    /// By kind, and by the transactions of the cycle, so that each is told of once.
    found: BTreeMap<Kind, BTreeMap<BTreeSet<usize>, Vec<Edge<'h>>>>,
}

impl<'h> Search<'h, '_> {
    /// Keeps the shortest cycle of each kind in each component, among those through dependencies that `starts` lets in.
    fn look(&mut self, graph: &Graph, starts: impl Fn(EdgeKind) -> bool) {
        let components = graph.components();
        let mut tried: BTreeMap<usize, usize> = BTreeMap::new();
        let mut shortest: BTreeMap<(usize, Kind), Vec<Edge<'h>>> = BTreeMap::new();
        for (number, edge) in self.edges.iter().enumerate() {
            let Some(component) = components.of(edge).filter(|_| starts(edge.kind)) else { continue };
            let tries = tried.entry(component).or_insert(0);
            *tries += 1;
            if *tries > STARTS_PER_COMPONENT_MAX {
                continue;
            }
            let Some(steps) = graph.cycle(self.edges, number, &components) else { continue };
            let cycle: Vec<Edge<'h>> = steps.into_iter().map(|step| self.edge(step)).collect();
            let place = (component, kind_of(&cycle));
            if shortest.get(&place).is_none_or(|known| known.len() > cycle.len()) {
                shortest.insert(place, cycle);
            }
        }
        for ((_, kind), cycle) in shortest {
            let transactions = cycle.iter().map(|edge| edge.from).collect();
            self.found.entry(kind).or_default().entry(transactions).or_insert(cycle);
        }
    }

    fn edge(&self, step: Step) -> Edge<'h> {
        match step {
            Step::Edge(number) => self.edges[number],
            Step::RealTime(from, to) => {
                let kind = EdgeKind::RealTime;
                Edge { from, to, kind, key: "", before: None, after: None, unseen: false }
            }
        }
    }
}

fn kind_of(cycle: &[Edge<'_>]) -> Kind {
    let count = |kind: EdgeKind| cycle.iter().filter(|edge| edge.kind == kind).count();
    let one_key = cycle.iter().all(|edge| edge.key == cycle[0].key);
    match count(EdgeKind::ReadWrite) {
        _ if count(EdgeKind::RealTime) > 0 => Kind::RealTime,
        0 if count(EdgeKind::WriteRead) == 0 => Kind::G0,
        0 => Kind::G1c,
        1 if one_key && count(EdgeKind::WriteRead) == 0 => Kind::LostUpdate,
        1 => Kind::GSingle,
        _ => Kind::LongFork,
    }
}

fn explain(history: &History, kind: Kind, cycle: &[Edge<'_>]) -> Anomaly {
    let transaction = |index: usize| &history.transactions()[index];
    let keys: BTreeSet<&str> = cycle.iter().map(|edge| edge.key).collect();
    let mut explanation: Vec<String> =
        cycle.iter().map(|edge| describe(transaction(edge.from), &keys)).collect();
    explanation
        .extend(cycle.iter().map(|edge| edge.words(history, |index| format!("T{}", transaction(index).id))));
    explanation
        .push("each line says that the first comes before the second; together they are a circle".into());
    let transactions = cycle.iter().map(|edge| transaction(edge.from).id).collect();
    Anomaly { kind, transactions, explanation }
}

/// A transaction in a line, with what it did to `keys`.
fn describe(transaction: &Transaction, keys: &BTreeSet<&str>) -> String {
    let outcome = match transaction.outcome {
        Outcome::Committed => "committed",
        Outcome::Aborted => "aborted",
        Outcome::Unknown => "outcome unknown to its client, but seen",
    };
    let here: Vec<String> = transaction
        .operations
        .iter()
        .filter(|operation| keys.contains(operation.key()))
        .map(|operation| match operation {
            Operation::Append { key, value } => format!("append {value} to {key}"),
            Operation::Set { key, value } => format!("set {key} to {value}"),
            Operation::Get { key, value } => format!("read {key}: {value}"),
            Operation::Read { key, values } => format!("read {key}: {}", list(values)),
        })
        .collect();
    let more = match here.len().saturating_sub(SHOWN_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "T{} (client {}, {} to {}, {outcome}): {}{more}",
        transaction.id,
        transaction.client,
        seconds(transaction.begin_us),
        seconds(transaction.end_us),
        here[..here.len().min(SHOWN_MAX)].join("; ")
    )
}

fn list(values: &[u64]) -> String {
    let shown: Vec<String> = values.iter().rev().take(SHOWN_MAX).rev().map(u64::to_string).collect();
    match values.len() > SHOWN_MAX {
        true => format!("[... {}] ({} values)", shown.join(" "), values.len()),
        false => format!("[{}]", shown.join(" ")),
    }
}
