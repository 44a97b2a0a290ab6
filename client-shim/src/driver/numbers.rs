//! Numbers of sessions.
//!
//! Invariants:
//! - None is given twice, not after a restart either: the upper half is the time, which only goes on. (Were it set back
//!   across a restart, a number would have to be drawn again by chance; the order then refuses what repeats it.)
//! - Later seconds have greater numbers, as the order's memory of sessions wants it.
//! - None can be guessed from another. Who knows the number of a transaction may ask for its outcome, and so void one that
//!   has not begun: users of one proxy cannot do that to each other.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};
use steeldb_types::SessionId;

/// What was given.
#[derive(Default)]
pub(super) struct Numbers {
    second: u64,
    /// Lower halves that were given in this second.
    given: BTreeSet<u32>,
}

impl Numbers {
    /// A number for a new session.
    pub(super) fn draw(&mut self) -> SessionId {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.draw_at(now.as_secs(), rand::random)
    }

    fn draw_at(&mut self, second: u64, mut random: impl FnMut() -> u32) -> SessionId {
        if second > self.second {
            self.second = second;
            self.given.clear();
        }
        let mut lower = random();
        while !self.given.insert(lower) {
            lower = random();
        }
        SessionId((self.second << 32) | u64::from(lower))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_go_on_with_time_even_if_the_clock_does_not() {
        let mut numbers = Numbers::default();
        let mut draws = [7, 7, 9, 7, 5, 3].into_iter();
        let mut draw = |second| numbers.draw_at(second, || draws.next().unwrap()).0;
        assert_eq!(
            [draw(100), draw(100), draw(101), draw(100)],
            [100 << 32 | 7, 100 << 32 | 9, 101 << 32 | 7, 101 << 32 | 5]
        );
    }

    /// E1: a neighbour's number is no key to this one's.
    #[test]
    fn e1_no_number_follows_from_another() {
        let mut numbers = Numbers::default();
        let drawn: Vec<u64> = (0..64).map(|_| numbers.draw().0 & 0xffff_ffff).collect();
        let steps: BTreeSet<u64> = drawn.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.len() > 32, "{drawn:?}");
    }
}
