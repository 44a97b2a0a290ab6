//! Tentative replies: what a client believes on replies of weight Q_v, of one instance, regency and value, is what every
//! replica delivers there, whatever regencies follow and whatever loses power (A7).

use crate::history::History;
use crate::views::Views;
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{FaultModel, ReplicaId};

/// Compares each believed batch with every delivery of its instance. The faulty replicas vouch for everything.
///
/// # Errors
/// A batch that was believed, and delivered otherwise.
pub fn check(history: &History) -> Result<(), String> {
    let lies =
        |replica: &ReplicaId| history.model == FaultModel::Byzantine && !history.correct.contains(replica);
    let faulty: BTreeSet<ReplicaId> = (0..history.n).map(ReplicaId).filter(lies).collect();
    let mut vouchers: BTreeMap<_, (BTreeSet<ReplicaId>, _)> = BTreeMap::new();
    for (replica, tentative) in &history.vouched {
        let believed = vouchers.entry((tentative.instance, tentative.claim));
        let (replicas, first) = believed.or_insert_with(|| (faulty.clone(), tentative));
        replicas.insert(*replica);
        if first != &tentative {
            return Err(format!("{replica} tells of {} otherwise than others", tentative.instance));
        }
    }
    let views = Views::of(history)?;
    for (replicas, believed) in vouchers.values() {
        let view = views.at(believed.instance);
        if !view.is_some_and(|view| views.is_quorum(view, replicas)) {
            continue;
        }
        for observed in &history.observed {
            let delivery = &observed.delivery;
            if delivery.instance == believed.instance
                && (delivery.requests != believed.requests || delivery.timestamp != believed.timestamp)
            {
                return Err(format!(
                    "{} was believed to be {:?}; {} delivered {:?}",
                    believed.instance, believed.requests, observed.replica, delivery.requests
                ));
            }
        }
    }
    Ok(())
}
