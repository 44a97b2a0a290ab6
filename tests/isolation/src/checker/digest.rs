//! What a transaction says about the world outside it: its reads without its own writes, its writes by key.

use crate::history::{Operation, Transaction, Value};
use std::collections::BTreeMap;

/// A transaction, key by key.
pub(super) struct Digest<'a> {
    /// Lists that it read, as they were without it; the first read of each.
    pub(super) lists: BTreeMap<&'a str, &'a [Value]>,
    /// Registers that it read before it wrote them.
    pub(super) registers: BTreeMap<&'a str, Value>,
    /// What it appended, in its order.
    pub(super) appended: BTreeMap<&'a str, Vec<Value>>,
    /// What it set, in its order.
    pub(super) set: BTreeMap<&'a str, Vec<Value>>,
    /// Where its own answers contradict each other.
    pub(super) contradictions: Vec<String>,
}

impl<'a> Digest<'a> {
    pub(super) fn new(transaction: &'a Transaction) -> Digest<'a> {
        let mut digest = Digest {
            lists: BTreeMap::new(),
            registers: BTreeMap::new(),
            appended: BTreeMap::new(),
            set: BTreeMap::new(),
            contradictions: Vec::new(),
        };
        for operation in &transaction.operations {
            match operation {
                Operation::Append { key, value } => digest.appended.entry(key).or_default().push(*value),
                Operation::Set { key, value } => digest.set.entry(key).or_default().push(*value),
                Operation::Read { key, values } => digest.read(key, values),
                Operation::Get { key, value } => digest.get(key, *value),
            }
        }
        digest
    }

    /// The last value that it gave a key: the only one of its that others may be shown last.
    pub(super) fn last_written(&self, key: &str) -> Option<Value> {
        self.appended.get(key).or_else(|| self.set.get(key))?.last().copied()
    }

    /// All that it wrote.
    pub(super) fn written(&self) -> impl Iterator<Item = (&'a str, Value)> {
        let all = self.appended.iter().chain(&self.set);
        all.flat_map(|(key, values)| values.iter().map(|value| (*key, *value)))
    }

    /// All that it was shown and had not written itself.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&'a str, Value)> {
        let lists = self.lists.iter().flat_map(|(key, values)| values.iter().map(|value| (*key, *value)));
        lists.chain(self.registers.iter().map(|(key, value)| (*key, *value)))
    }

    fn read(&mut self, key: &'a str, values: &'a [Value]) {
        let own = self.appended.get(key).map_or(&[][..], |values| values.as_slice());
        let Some(before) = values.strip_suffix(own) else {
            let wrong = format!("it read {key:?} and did not find its own appends {own:?} at the end");
            self.contradictions.push(wrong);
            return;
        };
        match self.lists.get(key) {
            None => {
                self.lists.insert(key, before);
            }
            Some(first) if *first == before => {}
            Some(first) => {
                let (first, second) = (first.len(), before.len());
                let wrong = format!(
                    "it read {key:?} twice and found first {first}, then {second} values of others, or others"
                );
                self.contradictions.push(wrong);
            }
        }
    }

    fn get(&mut self, key: &'a str, value: Value) {
        let own = self.set.get(key).and_then(|values| values.last().copied());
        let expected = own.or_else(|| self.registers.get(key).copied());
        match expected {
            None => {
                self.registers.insert(key, value);
            }
            Some(expected) if expected == value => {}
            Some(expected) => {
                let whose = if own.is_some() { "had set it to" } else { "had read" };
                self.contradictions.push(format!("it read {value} from {key:?} where it {whose} {expected}"));
            }
        }
    }
}
