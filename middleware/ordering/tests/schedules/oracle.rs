//! What must hold, checked by code that shares nothing with the core: who the members of each view are, what they
//! weigh, and what is a quorum are worked out here anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use steeldb_ordering::{Change, Delivery, Proof, Request};
use steeldb_types::{Digest, FaultModel};
use steeldb_wire::auth::{Namespace, PublicKey};

/// A view as the oracle sees it.
#[derive(Clone, Debug)]
struct OracleView {
    members: BTreeSet<u16>,
    heavy: BTreeSet<u16>,
    next_id: u16,
}

/// Watches every delivery at a correct replica.
pub struct Oracle {
    model: FaultModel,
    f: u16,
    keys: Vec<PublicKey>,
    genesis: OracleView,
    /// By instance: the value, the view, and the change of the membership in it.
    decided: BTreeMap<u64, (Digest, u64, Option<Arc<Request>>)>,
    proofs: BTreeMap<u64, Vec<Proof>>,
    asked: BTreeSet<Digest>,
}

impl Oracle {
    pub fn new(model: FaultModel, n: u16, f: u16, keys: Vec<PublicKey>) -> Oracle {
        let genesis = OracleView { members: (0..n).collect(), heavy: BTreeSet::new(), next_id: n };
        let mut oracle = Oracle {
            model,
            f,
            keys,
            genesis: genesis.clone(),
            decided: BTreeMap::new(),
            proofs: BTreeMap::new(),
            asked: BTreeSet::new(),
        };
        oracle.genesis = oracle.weighted(genesis, None);
        oracle
    }

    /// An administrator asked for this.
    pub fn asked(&mut self, request: &Request) {
        self.asked.insert(request.digest());
    }

    /// Agreement, of values and of views.
    pub fn observe(&mut self, replica: u16, delivery: &Delivery) -> Result<(), String> {
        let instance = delivery.instance.0;
        let (value, view) = (delivery.proof.claim.value, delivery.proof.claim.regency.view.0);
        let changes: Vec<&Arc<Request>> = delivery
            .requests
            .iter()
            .map(|(_, request)| request)
            .filter(|request| matches!(***request, Request::Membership { .. }))
            .collect();
        if changes.len() > 1 || (changes.len() == 1 && delivery.requests.len() > 1) {
            return Err(format!("a change that is not alone in instance {instance}"));
        }
        let change = changes.first().map(|request| Arc::clone(request));
        let known = self.decided.entry(instance).or_insert_with(|| (value, view, change));
        if (known.0, known.1) != (value, view) {
            return Err(format!(
                "agreement: instance {instance} is another one, or of another view, at {replica}"
            ));
        }
        let proofs = self.proofs.entry(instance).or_default();
        if !proofs.contains(&delivery.proof) {
            proofs.push(delivery.proof.clone());
        }
        Ok(())
    }

    /// Each instance is of the view that the changes before it made, and was decided by a quorum of that view.
    pub fn judge(&self) -> Result<(), String> {
        let (mut view, mut number) = (self.genesis.clone(), 0);
        let mut done = BTreeSet::new();
        for (instance, (_, named, change)) in &self.decided {
            if *named != number {
                return Err(format!("view agreement: instance {instance} in view {named}, not {number}"));
            }
            for proof in &self.proofs[instance] {
                self.convince(&view, proof).map_err(|reason| format!("instance {instance}: {reason}"))?;
            }
            if let Some(request) = change {
                if !self.asked.contains(&request.digest()) || !done.insert(request.digest()) {
                    return Err(format!("instance {instance}: a change that nobody asked for, or again"));
                }
                view = self.after(view, request)?;
                number += 1;
            }
        }
        Ok(())
    }

    fn after(&self, mut view: OracleView, request: &Request) -> Result<OracleView, String> {
        let change = Change::decode(request.payload()).map_err(|error| error.to_string())?;
        for replica in &change.remove {
            view.members.remove(&replica.0);
        }
        for _ in &change.add {
            view.members.insert(view.next_id);
            view.next_id += 1;
        }
        Ok(self.weighted(view, change.heavy.map(|heavy| heavy.iter().map(|id| id.0).collect())))
    }

    fn weighted(&self, mut view: OracleView, wanted: Option<BTreeSet<u16>>) -> OracleView {
        let (least, heavy) = match self.model {
            FaultModel::Byzantine => (3 * self.f + 1, 2 * self.f),
            FaultModel::Crash => (2 * self.f + 1, self.f),
        };
        let spare = view.members.len() as u16 - least;
        let wanted = wanted.unwrap_or_else(|| view.heavy.clone());
        view.heavy = match spare {
            0 => BTreeSet::new(),
            _ if wanted.len() == usize::from(heavy) && wanted.is_subset(&view.members) => wanted,
            _ => view.members.iter().copied().take(heavy.into()).collect(),
        };
        view
    }

    fn convince(&self, view: &OracleView, proof: &Proof) -> Result<(), String> {
        let mut message = proof.claim.regency.view.0.to_le_bytes().to_vec();
        message.extend(proof.claim.regency.number.to_le_bytes());
        message.extend(proof.instance.0.to_le_bytes());
        message.extend(proof.claim.value.0);
        let signers: BTreeSet<u16> = proof.accepts.iter().map(|(replica, _)| replica.0).collect();
        for (replica, signature) in &proof.accepts {
            if !view.members.contains(&replica.0) {
                return Err(format!("replica {replica} is no member"));
            }
            let key = &self.keys[usize::from(replica.0)];
            key.verify(Namespace::Accept, &message, signature).map_err(|error| error.to_string())?;
        }
        // WHEAT: V_min = 1, V_max = 1 + spare / f, in units of 1 / f.
        let n = view.members.len() as u16;
        let (f, spare) = match self.model {
            FaultModel::Byzantine => (self.f, n - 3 * self.f - 1),
            FaultModel::Crash => (self.f, n - 2 * self.f - 1),
        };
        let weight: u16 = signers.iter().map(|id| if view.heavy.contains(id) { f + spare } else { f }).sum();
        let most = f * if spare > 0 { f + spare } else { f };
        let needed = match self.model {
            FaultModel::Byzantine => 2 * most + f,
            FaultModel::Crash => most + f,
        };
        if weight < needed {
            return Err(format!(
                "proofs: weight {weight} of {signers:?} where {needed} are needed in {view:?}"
            ));
        }
        Ok(())
    }
}
