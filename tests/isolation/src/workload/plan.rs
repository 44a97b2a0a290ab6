//! What a client does next: a function of the seed and the client's number (which values it writes is not: they are
//! handed out in the order in which clients ask).

use super::{Options, Shared};
use crate::history::Value;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::Ordering;

/// A step of a transaction, before it is answered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Step {
    Append(String, Value),
    Read(String),
    Get(String),
    Set(String, Value),
}

/// Steps of a transaction.
const STEPS_MAX: usize = 4;

pub(super) struct Plan {
    rng: ChaCha8Rng,
    keys: u32,
    list_values_max: u64,
}

impl Plan {
    pub(super) fn new(options: &Options, client: u32) -> Plan {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(u64::from(client));
        Plan { rng, keys: options.keys.max(1), list_values_max: options.list_values_max.max(1) }
    }

    /// The next transaction. Of five: two append and read, one reads several keys, two read and write registers.
    pub(super) fn next(&mut self, shared: &Shared) -> Vec<Step> {
        let kind = self.rng.random_range(0..5);
        let count = self.rng.random_range(1..=STEPS_MAX);
        match kind {
            0 | 1 => (0..count).map(|_| self.list_step(shared, true)).collect(),
            2 => (0..count.max(2))
                .map(|_| match self.rng.random_bool(0.5) {
                    true => self.list_step(shared, false),
                    false => Step::Get(self.register()),
                })
                .collect(),
            _ => {
                let key = self.register();
                let set = Step::Set(key.clone(), value(shared));
                match count {
                    1 | 2 => vec![Step::Get(key), set],
                    _ => vec![Step::Get(key), self.list_step(shared, false), set],
                }
            }
        }
    }

    fn list_step(&mut self, shared: &Shared, may_append: bool) -> Step {
        // The lists in use move on with the values handed out; in between some clients still use the earlier ones.
        let values = shared.next_value.load(Ordering::Relaxed);
        let generation = values / (self.list_values_max * u64::from(self.keys) * 2);
        let key = format!("l{generation}.{}", self.rng.random_range(0..self.keys));
        match may_append && self.rng.random_bool(0.6) {
            true => Step::Append(key, value(shared)),
            false => Step::Read(key),
        }
    }

    fn register(&mut self) -> String {
        format!("r{}", self.rng.random_range(0..self.keys))
    }
}

fn value(shared: &Shared) -> Value {
    shared.next_value.fetch_add(1, Ordering::Relaxed)
}
