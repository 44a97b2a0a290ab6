//! Which transaction a terminal runs next (clause 5.2.4.2): cards drawn from a shuffled deck.

use crate::random::TpccRandom;
use crate::transactions::Kind;

/// Cards of each kind in a deck of a hundred; the minimum shares of clause 5.2.3.
const CARDS: [(Kind, usize); 5] = [
    (Kind::NewOrder, 45),
    (Kind::Payment, 43),
    (Kind::OrderStatus, 4),
    (Kind::Delivery, 4),
    (Kind::StockLevel, 4),
];

/// A deck, shuffled anew whenever it is used up.
#[derive(Clone, Debug, Default)]
pub struct Deck {
    cards: Vec<Kind>,
}

impl Deck {
    /// The next transaction.
    pub fn draw(&mut self, random: &mut TpccRandom) -> Kind {
        loop {
            if let Some(kind) = self.cards.pop() {
                return kind;
            }
            self.cards = CARDS.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)).collect();
            random.shuffle(&mut self.cards);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hundred_cards_hold_the_mix() {
        let mut random = TpccRandom::new(1, 0);
        let mut deck = Deck::default();
        let mut first = Vec::new();
        for round in 0..20 {
            let drawn: Vec<Kind> = (0..100).map(|_| deck.draw(&mut random)).collect();
            for (kind, count) in CARDS {
                assert_eq!(drawn.iter().filter(|card| **card == kind).count(), count, "round {round}");
            }
            first.push(drawn);
        }
        first.dedup();
        assert_eq!(first.len(), 20, "each deck has its own order");
    }
}
