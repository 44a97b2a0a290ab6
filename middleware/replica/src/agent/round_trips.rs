//! Round trips between this replica and its peers, for `steeldb cluster plan`: hints for an administrator, nothing depends
//! on them.
//!
//! Invariants:
//! - Nobody is measured as nearer than it is: an answer counts only with the number that the question was sent with, which
//!   cannot be guessed. (It may be measured as farther away: by answering late.)
//! - The least of the last few counts: what a busy reactor adds is not the network's.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use steeldb_types::ReplicaId;

/// How often each peer is asked.
const EVERY: Duration = Duration::from_secs(5);

/// Round trips that are remembered of each peer.
const REMEMBERED: usize = 12;

/// What is known of the peers with which there are links.
#[derive(Default)]
pub(super) struct RoundTrips {
    peers: BTreeMap<ReplicaId, Peer>,
}

#[derive(Default)]
struct Peer {
    /// The last question: its number, and when it left.
    asked: Option<(u64, Instant)>,
    answered: bool,
    last: VecDeque<Duration>,
}

impl RoundTrips {
    /// The peer's link is up: it is to be asked.
    pub(super) fn up(&mut self, peer: ReplicaId) {
        self.peers.insert(peer, Peer::default());
    }

    /// Its link is down: what was measured may not hold any more.
    pub(super) fn down(&mut self, peer: ReplicaId) {
        self.peers.remove(&peer);
    }

    /// Whom to ask now, each with a number.
    pub(super) fn due(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Vec<(ReplicaId, u64)> {
        let mut due = Vec::new();
        for (id, peer) in &mut self.peers {
            if peer.asked.is_none_or(|(_, at)| now.duration_since(at) >= EVERY) {
                let number = random();
                peer.asked = Some((number, now));
                peer.answered = false;
                due.push((*id, number));
            }
        }
        due
    }

    /// An answer.
    pub(super) fn answered(&mut self, from: ReplicaId, number: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if let Some((asked, at)) = peer.asked
            && asked == number
            && !peer.answered
        {
            peer.answered = true;
            if peer.last.len() == REMEMBERED {
                peer.last.pop_front();
            }
            peer.last.push_back(now.duration_since(at));
        }
    }

    /// The round trip to each peer that has answered.
    pub(super) fn measured(&self) -> impl Iterator<Item = (ReplicaId, Duration)> {
        self.peers.iter().filter_map(|(id, peer)| Some((*id, *peer.last.iter().min()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Asks at `at` and gives the number; nothing when nobody is due.
    fn ask(trips: &mut RoundTrips, at: Instant, number: u64) -> Option<u64> {
        trips.due(at, || number).first().map(|(_, number)| *number)
    }

    #[test]
    fn the_least_of_the_last_ones_counts() {
        let (start, mut trips) = (Instant::now(), RoundTrips::default());
        trips.up(PEER);
        for (round, took) in (0u32..).zip([90, 70, 80]) {
            let at = start + EVERY * round;
            assert_eq!(ask(&mut trips, at, u64::from(round)), Some(u64::from(round)));
            assert_eq!(ask(&mut trips, at + ms(1), 99), None, "it is not due");
            trips.answered(PEER, u64::from(round), at + ms(took));
        }
        assert_eq!(trips.measured().collect::<Vec<_>>(), [(PEER, ms(70))]);
        for round in 3..3 + REMEMBERED as u32 {
            let at = start + EVERY * round;
            ask(&mut trips, at, u64::from(round));
            trips.answered(PEER, u64::from(round), at + ms(100));
        }
        assert_eq!(trips.measured().collect::<Vec<_>>(), [(PEER, ms(100))], "the network got slower");
        trips.down(PEER);
        assert_eq!(trips.measured().count(), 0);
    }

    #[test]
    fn answers_to_nothing_do_not_count() {
        let (start, mut trips) = (Instant::now(), RoundTrips::default());
        trips.answered(PEER, 1, start);
        trips.up(PEER);
        trips.answered(PEER, 0, start);
        ask(&mut trips, start, 7);
        trips.answered(PEER, 8, start + ms(1));
        trips.answered(ReplicaId(3), 7, start + ms(1));
        assert_eq!(trips.measured().count(), 0);
        trips.answered(PEER, 7, start + ms(50));
        trips.answered(PEER, 7, start + ms(60));
        // An answer that comes after the next question is none.
        ask(&mut trips, start + EVERY, 9);
        trips.answered(PEER, 7, start + EVERY + ms(1));
        assert_eq!(trips.measured().collect::<Vec<_>>(), [(PEER, ms(50))]);
    }
}
