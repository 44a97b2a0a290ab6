//! Draws from sequences: what the master's server gave to an operation, which the others take from the stream instead of
//! drawing by themselves (A9).
//!
//! Draws are in no transcript: the client signs those, and it is not told of draws that it does not see. What a draw does
//! shows in a result or in a row, and those are vouched for.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use steeldb_types::limits;

/// What was done to a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum DrawKind {
    /// nextval gave a value.
    Value,
    /// setval set one; the step is 1 if the value counts as drawn, else 0.
    Set,
    /// nextval failed: the sequence was at its end.
    Exhausted,
}

/// Draws of one kind from one sequence, in a row and evenly spaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Run {
    /// Which of [`Draws`]' names.
    pub sequence: u16,
    /// What was done.
    pub kind: DrawKind,
    /// The first value.
    pub first: i64,
    /// From one value to the next.
    pub step: i64,
    /// How many, at least one.
    pub count: u32,
}

impl Run {
    /// The last value; none if that would be no number of PostgreSQL's.
    pub fn last(&self) -> Option<i64> {
        self.step.checked_mul(i64::from(self.count.checked_sub(1)?))?.checked_add(self.first)
    }
}

/// The draws of one operation, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Draws {
    names: Vec<String>,
    runs: Vec<Run>,
}

impl Draws {
    /// None.
    pub const NONE: Draws = Draws { names: Vec::new(), runs: Vec::new() };

    /// Adds a draw from the sequence of this qualified name. Past [`limits::DRAW_RUNS_MAX`] and
    /// [`limits::DRAW_SEQUENCES_MAX`] it is left out: the others then miss it, and the operation is a mismatch.
    pub fn push(&mut self, kind: DrawKind, value: i64, step: i64, name: &str) {
        let sequence = match self.names.iter().position(|known| known == name) {
            Some(at) => at,
            None if self.names.len() < limits::DRAW_SEQUENCES_MAX => {
                self.names.push(name.to_string());
                self.names.len() - 1
            }
            None => return,
        };
        let Ok(sequence) = u16::try_from(sequence) else { return };
        if kind == DrawKind::Value
            && let Some(run) = self.runs.last_mut()
            && (run.sequence, run.kind) == (sequence, kind)
            && run.count < u32::MAX
        {
            let step = if run.count == 1 { value.checked_sub(run.first) } else { Some(run.step) };
            if let Some(step) = step
                && (Run { step, count: run.count + 1, ..*run }).last() == Some(value)
            {
                (run.step, run.count) = (step, run.count + 1);
                return;
            }
        }
        if self.runs.len() < limits::DRAW_RUNS_MAX {
            self.runs.push(Run { sequence, kind, first: value, step, count: 1 });
        }
    }

    /// Whether nothing was drawn.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes it occupies, roughly.
    pub fn size(&self) -> usize {
        self.runs.len() * size_of::<Run>() + self.names.iter().map(|name| 32 + name.len()).sum::<usize>()
    }

    /// Whether it is what [`Draws::push`] can have made.
    pub fn is_sound(&self) -> bool {
        self.names.len() <= limits::DRAW_SEQUENCES_MAX
            && self.names.iter().all(|name| name.len() <= limits::SEQUENCE_NAME_BYTES_MAX)
            && self.runs.len() <= limits::DRAW_RUNS_MAX
            && self
                .runs
                .iter()
                .all(|run| usize::from(run.sequence) < self.names.len() && run.last().is_some())
    }

    /// Adds the least and the greatest value that nextval gave, by sequence.
    pub fn mark(&self, marks: &mut BTreeMap<String, (i64, i64)>) {
        for (name, first, last) in self.values() {
            let (least, greatest) = marks.entry(name.to_string()).or_insert((first, first));
            *least = (*least).min(first).min(last);
            *greatest = (*greatest).max(first).max(last);
        }
    }

    /// The values that nextval gave: sequence, and the first and the last of each run.
    pub fn values(&self) -> impl Iterator<Item = (&str, i64, i64)> {
        self.runs.iter().filter(|run| run.kind == DrawKind::Value).filter_map(|run| {
            Some((self.names.get(usize::from(run.sequence))?.as_str(), run.first, run.last()?))
        })
    }

    /// As `steeldb.hand_draws` reads them: "kind first step count name", the name in hexadecimal digits, a line each.
    pub fn to_lines(&self) -> String {
        let mut text = String::new();
        for run in &self.runs {
            let kind = match run.kind {
                DrawKind::Value => 'n',
                DrawKind::Set => 's',
                DrawKind::Exhausted => 'x',
            };
            let name = self.names.get(usize::from(run.sequence)).map(String::as_str).unwrap_or_default();
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = write!(text, "{kind} {} {} {} ", run.first, run.step, run.count);
            for byte in name.bytes() {
                let _ = write!(text, "{byte:02x}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: &[i64]) -> Draws {
        let mut draws = Draws::default();
        for value in values {
            draws.push(DrawKind::Value, *value, 0, "public.s");
        }
        draws
    }

    #[test]
    fn draws_in_a_row_are_one_run() {
        assert_eq!(drawn(&[5, 6, 7]).to_lines(), "n 5 1 3 7075626c69632e73");
        assert_eq!(drawn(&[5, 3, 1]).to_lines(), "n 5 -2 3 7075626c69632e73");
        let mut draws = drawn(&[1, 2, 9]);
        draws.push(DrawKind::Set, 4, 1, "public.s");
        draws.push(DrawKind::Value, 5, 0, "a.\"b c\"");
        draws.push(DrawKind::Exhausted, 0, 0, "a.\"b c\"");
        assert_eq!(draws.to_lines().lines().count(), 5);
        assert_eq!(
            draws.values().collect::<Vec<_>>(),
            [("public.s", 1, 2), ("public.s", 9, 9), ("a.\"b c\"", 5, 5)]
        );
        assert!(draws.is_sound());
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trouble() {
        let draws = drawn(&[i64::MIN, i64::MAX, i64::MIN, i64::MAX - 1, i64::MAX]);
        assert!(draws.is_sound());
        let drawn: Vec<_> = draws.values().collect();
        assert_eq!((drawn[0].1, drawn.last().unwrap().2), (i64::MIN, i64::MAX));
    }

    #[test]
    fn runs_and_names_are_bounded_and_what_a_liar_made_is_not_sound() {
        let mut draws = Draws::default();
        for n in 0..limits::DRAW_RUNS_MAX as i64 + 10 {
            draws.push(DrawKind::Set, n, 0, &format!("s{}", n % 1000));
        }
        assert!(draws.is_sound());
        assert!(draws.runs.len() <= limits::DRAW_RUNS_MAX && draws.names.len() <= limits::DRAW_SEQUENCES_MAX);
        let run = Run { sequence: 0, kind: DrawKind::Value, first: 1, step: 1, count: 1 };
        let liar = |names: &[&str], run| Draws {
            names: names.iter().map(|name| name.to_string()).collect(),
            runs: vec![run],
        };
        assert!(liar(&["s"], run).is_sound());
        assert!(!liar(&[], run).is_sound());
        assert!(!liar(&["s"], Run { count: 0, ..run }).is_sound());
        assert!(!liar(&["s"], Run { first: i64::MAX, count: 2, ..run }).is_sound());
        assert!(!liar(&[&"s".repeat(1000)], run).is_sound());
    }
}
