//! Dependencies between transactions, with what shows them.

use super::digest::Digest;
use super::versions::Versions;
use crate::history::{History, UNSET, Value};
use std::collections::{BTreeMap, BTreeSet};

/// How the second depends on the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum EdgeKind {
    /// It wrote the next version.
    WriteWrite,
    /// It read the version.
    WriteRead,
    /// It replaced the version that the first read.
    ReadWrite,
    /// The first was acknowledged before it began.
    RealTime,
}

/// A dependency of `to` on `from`; both are indices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Edge<'a> {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) kind: EdgeKind,
    pub(super) key: &'a str,
    /// The version that `from` wrote or read; nothing: before all others.
    pub(super) before: Option<Value>,
    /// The version that `to` wrote, if it did.
    pub(super) after: Option<Value>,
    /// `after` is in no read, so that it comes after all that is.
    pub(super) unseen: bool,
}

impl<'a> Edge<'a> {
    /// All dependencies of transactions that took effect, without rt.
    pub(super) fn all(
        history: &'a History,
        digests: &'a [Digest<'a>],
        versions: &Versions<'a>,
    ) -> Vec<Edge<'a>> {
        let mut edges = Vec::new();
        lists(digests, versions, &mut edges);
        registers(digests, versions, &mut edges);
        debug_assert!(edges.iter().all(|edge| edge.to < history.transactions().len()));
        edges.retain(|edge| edge.from != edge.to);
        edges
    }

    /// In words. `name` names a transaction.
    pub(super) fn words(&self, history: &History, name: impl Fn(usize) -> String) -> String {
        let (from, to, key) = (name(self.from), name(self.to), self.key);
        let value = |value: Option<Value>| value.map_or("nothing".to_string(), |value| value.to_string());
        let (before, after) = (value(self.before), value(self.after));
        match self.kind {
            EdgeKind::WriteWrite if self.unseen => format!(
                "{from} -ww-> {to}: {to} wrote {after} to {key:?}, which no read shows, so it comes after {before} of {from}"
            ),
            EdgeKind::WriteWrite => {
                format!("{from} -ww-> {to}: {to} wrote {after} to {key:?} right after {before} of {from}")
            }
            EdgeKind::WriteRead => {
                format!("{from} -wr-> {to}: {to} read {key:?} up to {before}, which {from} wrote")
            }
            EdgeKind::ReadWrite => {
                let unseen = if self.unseen { " (which no read shows)" } else { "" };
                format!(
                    "{from} -rw-> {to}: {from} read {key:?} up to {before}, and so without {after}{unseen}, which {to} wrote"
                )
            }
            EdgeKind::RealTime => {
                let end = history.transactions()[self.from].end_us;
                let begin = history.transactions()[self.to].begin_us;
                format!(
                    "{from} -rt-> {to}: {from} was acknowledged at {}, before the first statement of {to} at {}",
                    seconds(end),
                    seconds(begin)
                )
            }
        }
    }
}

/// Microseconds as seconds.
pub(super) fn seconds(us: u64) -> String {
    format!("{}.{:06} s", us / 1_000_000, us % 1_000_000)
}

fn lists<'a>(digests: &'a [Digest<'a>], versions: &Versions<'a>, edges: &mut Vec<Edge<'a>>) {
    // What took effect and is in no read, by list.
    let mut unseen: BTreeMap<&str, Vec<(Value, usize)>> = BTreeMap::new();
    for index in versions.effective() {
        for (key, values) in &digests[index].appended {
            unseen.entry(key).or_default().extend(values.iter().map(|value| (*value, index)));
        }
    }
    let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for index in versions.effective() {
        for key in digests[index].lists.keys() {
            readers.entry(key).or_default().push(index);
        }
    }
    for (key, order) in versions.orders() {
        let seen: BTreeSet<Value> = order.iter().copied().collect();
        let unseen = unseen.remove(key).unwrap_or_default();
        let unseen: Vec<_> = unseen.into_iter().filter(|(value, _)| !seen.contains(value)).collect();
        // The writer at each place; values of nobody known are passed over.
        let writers: Vec<Option<usize>> = order.iter().map(|value| versions.writer(key, *value)).collect();
        let mut last: Option<(Value, usize)> = None;
        for (value, writer) in order.iter().zip(&writers) {
            let Some(writer) = *writer else { continue };
            if let Some((before, from)) = last {
                let (before, after) = (Some(before), Some(*value));
                let kind = EdgeKind::WriteWrite;
                edges.push(Edge { from, to: writer, kind, key, before, after, unseen: false });
            }
            last = Some((*value, writer));
        }
        for (value, writer) in &unseen {
            if let Some((before, from)) = last {
                let (before, after) = (Some(before), Some(*value));
                let kind = EdgeKind::WriteWrite;
                edges.push(Edge { from, to: *writer, kind, key, before, after, unseen: true });
            }
        }
        for reader in readers.remove(key).unwrap_or_default() {
            let Some(values) = digests[reader].lists.get(key) else { continue };
            if !versions.fits(key, values) {
                continue;
            }
            let place = (0..values.len()).rev().find_map(|place| Some((place, writers[place]?)));
            let before = place.map(|(place, _)| order[place]);
            let from = place.map(|(_, writer)| writer);
            if let Some(from) = from {
                let kind = EdgeKind::WriteRead;
                edges.push(Edge { from, to: reader, kind, key, before, after: None, unseen: false });
            }
            let kind = EdgeKind::ReadWrite;
            // The rest of a transaction that was seen half done is another anomaly (G1b).
            let next =
                (values.len()..order.len()).find(|place| writers[*place].is_some_and(|w| Some(w) != from));
            match next.and_then(|place| Some((order[place], writers[place]?))) {
                Some((after, to)) => {
                    edges.push(Edge {
                        from: reader,
                        to,
                        kind,
                        key,
                        before,
                        after: Some(after),
                        unseen: false,
                    });
                }
                None => edges.extend(unseen.iter().map(|(after, to)| {
                    let after = Some(*after);
                    Edge { from: reader, to: *to, kind, key, before, after, unseen: true }
                })),
            }
        }
    }
}

fn registers<'a>(digests: &'a [Digest<'a>], versions: &Versions<'a>, edges: &mut Vec<Edge<'a>>) {
    let mut readers: BTreeMap<(&str, Value), Vec<usize>> = BTreeMap::new();
    for index in versions.effective() {
        for (key, value) in &digests[index].registers {
            readers.entry((key, *value)).or_default().push(index);
        }
    }
    for ((key, value), readers) in readers {
        let before = Some(value).filter(|value| *value != UNSET);
        let writer = before.and_then(|value| versions.writer(key, value));
        for reader in &readers {
            if let Some(from) = writer {
                let kind = EdgeKind::WriteRead;
                edges.push(Edge { from, to: *reader, kind, key, before, after: None, unseen: false });
            }
            let Some(after) = digests[*reader].last_written(key) else { continue };
            let (to, after) = (*reader, Some(after));
            if let Some(from) = writer {
                let kind = EdgeKind::WriteWrite;
                edges.push(Edge { from, to, kind, key, before, after, unseen: false });
            }
            let others = readers.iter().map(|from| Edge {
                from: *from,
                to,
                kind: EdgeKind::ReadWrite,
                key,
                before,
                after,
                unseen: false,
            });
            edges.extend(others);
        }
    }
}
