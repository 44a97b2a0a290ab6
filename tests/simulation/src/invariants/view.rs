//! View agreement: all correct replicas decide an instance in the same view, and views only ever advance.

use crate::history::History;
use std::collections::BTreeMap;

/// Compares the views of every delivery, across replicas and along each one's order.
///
/// # Errors
/// Two views for one instance, or a view that came back.
pub fn check(history: &History) -> Result<(), String> {
    let mut views = BTreeMap::new();
    for observed in &history.observed {
        let (instance, view) = (observed.delivery.instance, observed.delivery.proof.claim.regency.view);
        let known = *views.entry(instance).or_insert(view);
        if known != view {
            return Err(format!("{instance} in {known:?} and, at {}, in {view:?}", observed.replica));
        }
    }
    let views: Vec<_> = views.into_values().collect();
    if !views.is_sorted() {
        return Err(format!("the instances' views are {views:?}"));
    }
    Ok(())
}
