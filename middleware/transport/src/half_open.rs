//! Connections that have not shown who they are: at most a number of them. When one too many comes the oldest goes, so
//! that strangers who open connections and stay silent cannot keep others out.

use crate::queue::locked;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// The half-open connections of a listener.
pub(crate) struct HalfOpen {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    tokens: VecDeque<(u64, CancellationToken)>,
}

/// A place among the half-open connections; given back when dropped.
pub(crate) struct Place {
    number: u64,
    evicted: CancellationToken,
    home: Arc<HalfOpen>,
}

impl HalfOpen {
    /// Room for `max` connections, at least one.
    pub(crate) fn new(max: usize) -> Arc<HalfOpen> {
        Arc::new(HalfOpen { max: max.max(1), open: Mutex::new(Open::default()) })
    }

    /// Takes a place, evicting the oldest holder if there is none left.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let mut open = locked(&self.open);
        if open.tokens.len() >= self.max
            && let Some((_, oldest)) = open.tokens.pop_front()
        {
            oldest.cancel();
        }
        let number = open.next;
        open.next += 1;
        let evicted = CancellationToken::new();
        open.tokens.push_back((number, evicted.clone()));
        Place { number, evicted, home: self.clone() }
    }
}

impl Place {
    /// Waits until the place is taken away.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.home.open).tokens.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_places_come_back() {
        let half_open = HalfOpen::new(2);
        let first = half_open.enter();
        let second = half_open.enter();
        drop(second);
        let third = half_open.enter();
        assert!(!first.evicted.is_cancelled());
        let fourth = half_open.enter();
        assert!(first.evicted.is_cancelled());
        assert!(!third.evicted.is_cancelled() && !fourth.evicted.is_cancelled());
    }
}
