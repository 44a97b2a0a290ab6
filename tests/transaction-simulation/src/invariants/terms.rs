//! A master goes on the word of a correct replica or of the administrator, or stays: each ordered certificate holds an
//! accusation that one cast, each ordered move is one that was signed, and no term begins that the order did not begin.

use crate::history::History;
use std::collections::BTreeSet;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::Ordered;

/// Follows the order's terms.
///
/// # Errors
/// A master that was deposed by liars alone, or a term that nobody began.
pub fn check(history: &History) -> Result<(), String> {
    let mut epoch = 0;
    let faulty_max = (history.replicas - 1) / 3;
    for ordinal in &history.order {
        match &ordinal.payload {
            Ordered::Depose(certificate) => {
                let accusers: BTreeSet<ReplicaId> =
                    certificate.accusations.iter().map(|signed| signed.replica).collect();
                let backed = certificate.accusations.iter().any(|signed| {
                    signed.accusation.term == certificate.term
                        && history.accused.contains(&(signed.replica, signed.accusation))
                });
                if accusers.len() <= faulty_max || !backed {
                    return Err(format!(
                        "{:?} ends at {} by {accusers:?} alone",
                        certificate.term, ordinal.position
                    ));
                }
                if certificate.term.epoch == epoch {
                    epoch += 1;
                }
            }
            Ordered::Move(wish) if !history.wishes.contains(wish) => {
                return Err(format!("nobody wished for {wish:?}"));
            }
            Ordered::Move(wish) if wish.term.epoch == epoch => epoch += 1,
            _ => {}
        }
    }
    match history.terms.iter().find(|(_, began)| *began > epoch) {
        Some((replica, began)) => Err(format!("{replica} begins epoch {began}, and the order began {epoch}")),
        None => Ok(()),
    }
}
