//! Who wrote what, which transactions took effect, in which order a key had its versions.

use super::anomaly::{Anomaly, Kind};
use super::digest::Digest;
use crate::history::{History, Outcome, UNSET, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Transactions are named by their index in the history throughout.
pub(super) struct Versions<'a> {
    history: &'a History,
    digests: &'a [Digest<'a>],
    /// Whether a transaction is known to have taken effect.
    effective: Vec<bool>,
    writers: BTreeMap<(&'a str, Value), usize>,
    /// The longest read of each list: its values in order, and whose read it was.
    orders: BTreeMap<&'a str, (&'a [Value], usize)>,
}

impl<'a> Versions<'a> {
    pub(super) fn new(history: &'a History, digests: &'a [Digest<'a>]) -> Versions<'a> {
        let mut writers = BTreeMap::new();
        for (index, digest) in digests.iter().enumerate() {
            writers.extend(digest.written().map(|written| (written, index)));
        }
        let effective = effective(history, digests, &writers);
        let mut orders: BTreeMap<&str, (&[Value], usize)> = BTreeMap::new();
        for index in (0..digests.len()).filter(|index| effective[*index]) {
            for (key, values) in &digests[index].lists {
                let order = orders.entry(key).or_insert((values, index));
                if values.len() > order.0.len() {
                    *order = (values, index);
                }
            }
        }
        Versions { history, digests, effective, writers, orders }
    }

    /// The transactions that took effect.
    pub(super) fn effective(&self) -> impl Iterator<Item = usize> {
        (0..self.effective.len()).filter(|index| self.effective[*index])
    }

    /// How many of unknown outcome did.
    pub(super) fn revealed(&self) -> usize {
        let transactions = self.history.transactions();
        self.effective().filter(|index| transactions[*index].outcome == Outcome::Unknown).count()
    }

    /// Who wrote a value, if it took effect.
    pub(super) fn writer(&self, key: &'a str, value: Value) -> Option<usize> {
        self.writers.get(&(key, value)).copied().filter(|index| self.effective[*index])
    }

    /// The lists and the longest read of each.
    pub(super) fn orders(&self) -> impl Iterator<Item = (&'a str, &'a [Value])> {
        self.orders.iter().map(|(key, (values, _))| (*key, *values))
    }

    /// Whether a read of a list is a beginning of its longest one.
    pub(super) fn fits(&self, key: &str, values: &[Value]) -> bool {
        self.orders.get(key).is_some_and(|(order, _)| order.starts_with(values))
    }

    /// What is wrong without any cycle.
    pub(super) fn anomalies(&self, anomalies: &mut Vec<Anomaly>) {
        for index in self.effective() {
            for contradiction in &self.digests[index].contradictions {
                let explanation = vec![format!("{}: {contradiction}", self.name(index))];
                self.add(anomalies, Kind::Internal, &[index], explanation);
            }
        }
        self.wrong_values(anomalies);
        self.intermediate_reads(anomalies);
        self.incompatible_orders(anomalies);
        self.registers_written_twice(anomalies);
    }

    /// Values of aborted transactions, of nobody, or twice in a list; each told of once.
    fn wrong_values(&self, anomalies: &mut Vec<Anomaly>) {
        let mut told = BTreeSet::new();
        for reader in self.effective() {
            let mut here = BTreeSet::new();
            for (key, value) in self.digests[reader].shown() {
                let again = !here.insert((key, value));
                if value == UNSET && !again {
                    continue;
                }
                let kind = match self.writers.get(&(key, value)) {
                    _ if again => Kind::Duplicate,
                    None => Kind::Unwritten,
                    Some(writer) if self.effective[*writer] => continue,
                    Some(_) => Kind::G1a,
                };
                if !told.insert((kind, key, value)) {
                    continue;
                }
                let reads = format!("{} read {value} from {key:?}", self.name(reader));
                match self.writers.get(&(key, value)) {
                    Some(writer) if kind == Kind::G1a => {
                        let wrote = format!("{} wrote it and did not commit", self.name(*writer));
                        self.add(anomalies, kind, &[*writer, reader], vec![reads, wrote]);
                    }
                    _ if kind == Kind::Duplicate => {
                        self.add(anomalies, kind, &[reader], vec![format!("{reads}, twice")]);
                    }
                    _ => self.add(anomalies, kind, &[reader], vec![format!("{reads}; nobody wrote it")]),
                }
            }
        }
    }

    fn intermediate_reads(&self, anomalies: &mut Vec<Anomaly>) {
        let mut told = BTreeSet::new();
        for reader in self.effective() {
            let digest = &self.digests[reader];
            let lists = digest.lists.iter().filter_map(|(key, values)| Some((*key, *values.last()?)));
            let last_seen = lists.chain(digest.registers.iter().map(|(key, value)| (*key, *value)));
            for (key, value) in last_seen {
                let Some(writer) = self.writer(key, value) else { continue };
                let last = self.digests[writer].last_written(key);
                if writer == reader || last == Some(value) || !told.insert((key, value)) {
                    continue;
                }
                let reads = format!("{} read {key:?} up to {value}", self.name(reader));
                let wrote =
                    format!("{} wrote it, and {} after it", self.name(writer), last.unwrap_or_default());
                self.add(anomalies, Kind::G1b, &[writer, reader], vec![reads, wrote]);
            }
        }
    }

    /// Of each list at most one.
    fn incompatible_orders(&self, anomalies: &mut Vec<Anomaly>) {
        let mut told = BTreeSet::new();
        for reader in self.effective() {
            for (key, values) in &self.digests[reader].lists {
                let Some((order, other)) = self.orders.get(key) else { continue };
                if order.starts_with(values) || !told.insert(*key) {
                    continue;
                }
                let common = order.iter().zip(values.iter()).take_while(|(a, b)| a == b).count();
                let lines = [(reader, values), (*other, order)].map(|(index, values)| {
                    format!(
                        "{} read {key:?} with {} at place {}",
                        self.name(index),
                        values[common],
                        common + 1
                    )
                });
                self.add(anomalies, Kind::IncompatibleOrder, &[reader, *other], lines.to_vec());
            }
        }
    }

    /// Registers that two set on the strength of the same value. (With lists it is a cycle.)
    fn registers_written_twice(&self, anomalies: &mut Vec<Anomaly>) {
        let mut first: BTreeMap<(&str, Value), usize> = BTreeMap::new();
        for index in self.effective() {
            let digest = &self.digests[index];
            for (key, value) in &digest.registers {
                let Some(set) = digest.last_written(key) else { continue };
                let Some(other) = first.insert((key, *value), index) else { continue };
                let others = self.digests[other].last_written(key).unwrap_or_default();
                let lines = [(other, others), (index, set)].map(|(index, set)| {
                    format!("{} read {value} from {key:?} and set it to {set}", self.name(index))
                });
                self.add(anomalies, Kind::LostUpdate, &[other, index], lines.to_vec());
            }
        }
    }

    fn name(&self, index: usize) -> String {
        let transaction = &self.history.transactions()[index];
        format!("T{} (client {})", transaction.id, transaction.client)
    }

    fn add(&self, anomalies: &mut Vec<Anomaly>, kind: Kind, indices: &[usize], explanation: Vec<String>) {
        let id = |index: &usize| self.history.transactions()[*index].id;
        anomalies.push(Anomaly { kind, transactions: indices.iter().map(id).collect(), explanation });
    }
}

/// Which transactions took effect: the acknowledged ones, and those of unknown outcome that such ones have read from.
fn effective(
    history: &History,
    digests: &[Digest<'_>],
    writers: &BTreeMap<(&str, Value), usize>,
) -> Vec<bool> {
    let outcome = |index: usize| history.transactions()[index].outcome;
    let mut effective: Vec<bool> =
        (0..digests.len()).map(|index| outcome(index) == Outcome::Committed).collect();
    let mut witnesses: Vec<usize> = (0..digests.len()).filter(|index| effective[*index]).collect();
    while let Some(witness) = witnesses.pop() {
        for shown in digests[witness].shown() {
            let Some(writer) = writers.get(&shown) else { continue };
            if outcome(*writer) == Outcome::Unknown && !effective[*writer] {
                effective[*writer] = true;
                witnesses.push(*writer);
            }
        }
    }
    effective
}
