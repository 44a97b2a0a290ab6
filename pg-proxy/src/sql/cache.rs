//! Analyses by text, since drivers send the same texts again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::SyntaxError;
use super::statement::Statement;

/// The statements of one text.
pub type Analysis = Arc<[Statement]>;

/// Texts longer than this are not kept: they carry values and hardly recur.
const KEPT_TEXT_BYTES_MAX: usize = 16 * 1024;

/// What an entry costs beyond its texts, bytes.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// Analyses SQL and remembers the results, within a bound of entries and of bytes. It may be shared by all sessions.
///
/// Entries leave by the clock algorithm: a hand passes over them and takes the first that was not used since it
/// last came by. Errors are not remembered.
#[derive(Debug)]
pub struct Analyzer {
    entries_max: usize,
    bytes_max: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    slot_of: HashMap<Arc<str>, usize>,
    slots: Vec<Slot>,
    hand: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    text: Arc<str>,
    analysis: Analysis,
    bytes: usize,
    used: bool,
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::new(4096, 16 * 1024 * 1024)
    }
}

impl Analyzer {
    /// An analyzer that remembers at most `entries_max` texts of together about `bytes_max` bytes.
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries_max, bytes_max, cache: Mutex::default() }
    }

    /// The statements of `sql`, as [`super::analyze`] gives them.
    pub fn analyze(&self, sql: &str) -> Result<Analysis, SyntaxError> {
        if let Some(known) = self.lock().get(sql) {
            return Ok(known);
        }
        let analysis: Analysis = super::analyze(sql)?.into();
        if sql.len() <= KEPT_TEXT_BYTES_MAX && self.entries_max > 0 {
            self.lock().put(sql, &analysis, self.entries_max, self.bytes_max);
        }
        Ok(analysis)
    }

    /// How many texts are remembered, and about how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let cache = self.lock();
        (cache.slots.len(), cache.bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn get(&mut self, sql: &str) -> Option<Analysis> {
        let slot = self.slots.get_mut(*self.slot_of.get(sql)?)?;
        slot.used = true;
        Some(Arc::clone(&slot.analysis))
    }

    fn put(&mut self, sql: &str, analysis: &Analysis, entries_max: usize, bytes_max: usize) {
        let statements = analysis.len() * size_of::<Statement>();
        let rewritten: usize = analysis.iter().map(|statement| statement.text.len()).sum();
        let bytes = sql.len() + rewritten + statements + ENTRY_OVERHEAD_BYTES;
        if bytes > bytes_max || self.slot_of.contains_key(sql) {
            return;
        }
        while self.slots.len() >= entries_max || self.bytes + bytes > bytes_max {
            self.evict();
        }
        let text: Arc<str> = sql.into();
        self.slot_of.insert(Arc::clone(&text), self.slots.len());
        self.slots.push(Slot { text, analysis: Arc::clone(analysis), bytes, used: false });
        self.bytes += bytes;
    }

    /// Removes one entry; there must be one.
    fn evict(&mut self) {
        loop {
            self.hand %= self.slots.len();
            if !std::mem::take(&mut self.slots[self.hand].used) {
                break;
            }
            self.hand += 1;
        }
        let gone = self.slots.swap_remove(self.hand);
        self.slot_of.remove(&gone.text);
        if let Some(moved) = self.slots.get(self.hand) {
            self.slot_of.insert(Arc::clone(&moved.text), self.hand);
        }
        self.bytes -= gone.bytes;
        self.hand += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(number: usize) -> String {
        format!("SELECT {number}")
    }

    #[test]
    fn a_text_is_analysed_once() {
        let analyzer = Analyzer::default();
        let first = analyzer.analyze("SELECT 1; SELECT 2").unwrap();
        let again = analyzer.analyze("SELECT 1; SELECT 2").unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(again.len(), 2);
        assert!(analyzer.analyze("SELEC").is_err());
        assert_eq!(analyzer.size().0, 1);
    }

    #[test]
    fn both_bounds_hold_and_used_entries_stay() {
        let analyzer = Analyzer::new(8, 100_000);
        let kept = analyzer.analyze(&select(0)).unwrap();
        for number in 1..100 {
            analyzer.analyze(&select(number)).unwrap();
            assert!(Arc::ptr_eq(&kept, &analyzer.analyze(&select(0)).unwrap()), "{number}");
            assert!(analyzer.size().0 <= 8);
        }
        let analyzer = Analyzer::new(1000, 5_000);
        for number in 0..100 {
            analyzer.analyze(&select(number)).unwrap();
            assert!(analyzer.size().1 <= 5_000);
        }
        assert!(analyzer.size().0 > 1);
    }

    #[test]
    fn texts_that_hardly_recur_are_not_kept() {
        let analyzer = Analyzer::default();
        let long = format!("SELECT '{}'", "x".repeat(KEPT_TEXT_BYTES_MAX));
        assert_eq!(analyzer.analyze(&long).unwrap().len(), 1);
        assert_eq!(analyzer.size(), (0, 0));
        let nothing = Analyzer::new(0, 0);
        assert_eq!(nothing.analyze("SELECT 1").unwrap().len(), 1);
    }
}
