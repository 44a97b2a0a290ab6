//! Positions: where text that was replaced came from.

/// A replacement of `start..end` (bytes of the user's query) by other text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) text: String,
}

/// Where one edit lies in the original and in the rewritten statement, in characters from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shift {
    original_start: usize,
    original_end: usize,
    rewritten_start: usize,
    rewritten_end: usize,
}

/// The edits of one statement, in order of position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PositionMap {
    shifts: Vec<Shift>,
}

impl PositionMap {
    pub(super) fn is_empty(&self) -> bool {
        self.shifts.is_empty()
    }

    /// The character offset in the original statement of one in the rewritten statement, both from 0.
    pub(super) fn original(&self, rewritten: usize) -> usize {
        let after = self.shifts.partition_point(|shift| shift.rewritten_start <= rewritten);
        match after.checked_sub(1).map(|last| self.shifts[last]) {
            None => rewritten,
            Some(shift) if rewritten < shift.rewritten_end => shift.original_start,
            Some(shift) => shift.original_end + (rewritten - shift.rewritten_end),
        }
    }
}

/// Applies `edits` (sorted, apart, inside `start..end`) to that part of `sql`.
pub(super) fn apply(sql: &str, start: usize, end: usize, edits: &[Edit]) -> (String, PositionMap) {
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut text = String::with_capacity(end - start + added);
    let mut shifts = Vec::with_capacity(edits.len());
    let (mut at, mut original, mut rewritten) = (start, 0, 0);
    for edit in edits {
        let kept = &sql[at..edit.start];
        text.push_str(kept);
        text.push_str(&edit.text);
        let kept_chars = kept.chars().count();
        let (original_start, rewritten_start) = (original + kept_chars, rewritten + kept_chars);
        original = original_start + sql[edit.start..edit.end].chars().count();
        rewritten = rewritten_start + edit.text.chars().count();
        shifts.push(Shift {
            original_start,
            original_end: original,
            rewritten_start,
            rewritten_end: rewritten,
        });
        at = edit.end;
    }
    text.push_str(&sql[at..end]);
    (text, PositionMap { shifts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_lead_back_through_edits_of_any_length() {
        let sql = "é now() x current_date y";
        let edits = [
            Edit { start: 3, end: 3, text: "steeldb.".into() },
            Edit { start: 11, end: 23, text: "d()".into() },
        ];
        let (text, map) = apply(sql, 0, sql.len(), &edits);
        assert_eq!(text, "é steeldb.now() x d() y");
        let at = |needle: &str, text: &str| text[..text.find(needle).unwrap()].chars().count();
        for needle in ["now", "x", "y"] {
            assert_eq!(map.original(at(needle, &text)), at(needle, sql), "{needle}");
        }
        assert_eq!(map.original(at("teel", &text)), at("now", sql));
        assert_eq!(map.original(at("()", &text) + 6), at("current", sql) + 12 - 12);
        assert_eq!(map.original(text.chars().count()), sql.chars().count());
    }
}
