//! What replicas hold, compared.

use crate::cluster::REPLICAS;
use std::collections::BTreeMap;
use steeldb_client_shim::VerifiedReplica;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::TableDigest;

/// What replicas hold at one place in the order, of those that answered.
pub struct Comparison {
    answers: Vec<VerifiedReplica>,
}

impl Comparison {
    pub(crate) fn new(answers: Vec<VerifiedReplica>) -> Comparison {
        Comparison { answers }
    }

    fn answer(&self, replica: ReplicaId) -> Option<&VerifiedReplica> {
        self.answers.iter().find(|answer| answer.replica == replica)
    }

    /// The replicas that did not answer, failed, or hold something else than most.
    pub fn differing(&self) -> Vec<ReplicaId> {
        let content = |answer: &VerifiedReplica| format!("{:?} {:?}", answer.position, answer.tables);
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for answer in self.answers.iter().filter(|answer| answer.tables.is_ok()) {
            *count.entry(content(answer)).or_default() += 1;
        }
        let most = count.into_iter().max_by_key(|(_, count)| *count).map(|(content, _)| content);
        let agrees = |replica: &ReplicaId| self.answer(*replica).map(content) == most && most.is_some();
        (0..REPLICAS).map(ReplicaId).filter(|replica| !agrees(replica)).collect()
    }

    /// In words, for those that differ.
    pub fn describe(&self) -> String {
        let words = self.differing().into_iter().map(|replica| {
            let what = match self.answer(replica).map(|answer| (&answer.tables, answer.position)) {
                None => "no answer".to_string(),
                Some((Err(reason), _)) => reason.clone(),
                Some((Ok(tables), position)) => {
                    let alone = |table: &&TableDigest| {
                        let mut others = self.answers.iter().filter_map(|other| other.tables.as_ref().ok());
                        others.any(|held| !held.contains(table))
                    };
                    let names: Vec<&str> =
                        tables.iter().filter(alone).map(|table| table.table.as_str()).collect();
                    format!("differs at {position} in {}", names.join(", "))
                }
            };
            format!("replica {}: {what}", replica.0)
        });
        words.collect::<Vec<_>>().join("; ")
    }
}
