//! What a COMMIT or ROLLBACK confirmed is what the transaction gives alone on the snapshot of its slot; and what committed
//! changed no row that somebody else changed meanwhile.

use super::model::{self, Begun, Decided, Model, States};
use super::serial::{Given, Serial, read, settled};
use crate::client::{Attempt, Ended};
use crate::history::History;
use crate::sql::{Key, Statement};
use std::ops::RangeInclusive;
use steeldb_client_shim::Completion;
use steeldb_types::Position;

/// Runs every confirmed transaction again.
///
/// # Errors
/// A transaction that was shown something else, or whose effects are not those of what it was shown.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    let states = model::states(history, &model);
    for attempt in history.attempts.iter().filter(|attempt| is_confirmed(attempt)) {
        let Some(begun) = model.of(attempt.tx) else {
            // It did nothing, so nothing of it was ordered.
            if attempt.shown.is_empty() {
                continue;
            }
            return Err(format!("{} was confirmed and never began", attempt.tx));
        };
        one(&model, &states, attempt, begun).map_err(|what| format!("{}: {what}", attempt.tx))?;
    }
    Ok(())
}

/// Whether its client was told that what it saw is true.
fn is_confirmed(attempt: &Attempt) -> bool {
    !attempt.broken && matches!(attempt.ended, Some(Ended::Finished(Ok(_))))
}

fn one(model: &Model, states: &States<'_>, attempt: &Attempt, begun: &Begun) -> Result<(), String> {
    let Some(snapshot) = states.before(begun.slot, model) else { return Ok(()) };
    let end = match begun.outcome {
        Some((position, _)) => position,
        None => Position(u64::MAX),
    };
    let mut serial = Serial::new(snapshot, begun.timestamp, begun.read_only);
    for shown in &attempt.shown {
        let statement = &shown.statement;
        let given = read(&shown.messages).ok_or(format!("{statement} has no whole answer"))?;
        match given.error.as_deref() {
            // Others were in its way: that is nothing that it could do alone.
            Some("40P01" | "57014" | "55P03") => serial.fail(),
            Some("40001") if !serial.failed => {
                let mut keys = keys(statement).ok_or(format!("{statement} cannot conflict"))?;
                if !keys.any(|key| states.changed_between(key, begun.slot, end).is_some()) {
                    return Err(format!("{statement} at {} conflicts with nobody", begun.slot));
                }
                serial.fail();
            }
            Some("23505") if !serial.failed && serial_takes(&serial, statement) => {
                let mut keys = keys(statement).ok_or(format!("{statement} has no key"))?;
                if !keys.any(|key| states.changed_between(key, begun.slot, end).is_some()) {
                    return Err(format!("{statement} at {}: nobody has that key", begun.slot));
                }
                serial.fail();
            }
            None if is_freed(states, begun, end, &serial, statement) => {
                compare(statement, given, serial.insert(statement))?;
            }
            _ => compare(statement, given, serial.run(statement))?,
        }
    }
    let committed = matches!(attempt.ended, Some(Ended::Finished(Ok(Completion::Committed(_)))));
    if !committed {
        return Ok(());
    }
    if let Some(Ended::Finished(Ok(Completion::Committed(None)))) = attempt.ended
        && !serial.writes.is_empty()
    {
        return Err("it was confirmed as one that wrote nothing".into());
    }
    effects(states, begun, &serial)
}

/// Whether a key is free as far as the transaction sees.
fn serial_takes(serial: &Serial<'_>, statement: &Statement) -> bool {
    matches!(statement, Statement::Insert { key, .. } if serial.sees(*key).is_none())
}

/// Whether a key that the transaction still sees is free, since somebody who committed meanwhile deleted the row.
fn is_freed(
    states: &States<'_>,
    begun: &Begun,
    end: Position,
    serial: &Serial<'_>,
    statement: &Statement,
) -> bool {
    matches!(statement, Statement::Insert { key, .. }
        if !serial.writes.contains_key(key) && states.changed_between(*key, begun.slot, end).is_some())
}

fn keys(statement: &Statement) -> Option<RangeInclusive<Key>> {
    match statement {
        Statement::Select { from, to, lock: true, .. }
        | Statement::Update { from, to, .. }
        | Statement::Delete { from, to } => Some(*from..=*to),
        Statement::Insert { key, .. } | Statement::Drift { key, .. } => Some(*key..=*key),
        _ => None,
    }
}

fn compare(statement: &Statement, mut shown: Given, mut expected: Given) -> Result<(), String> {
    if !statement.is_ordered() {
        shown.rows.sort();
        expected.rows.sort();
    }
    if shown == expected { Ok(()) } else { Err(format!("{statement} gave {shown:?} and not {expected:?}")) }
}

/// What it committed is what it was shown.
fn effects(states: &States<'_>, begun: &Begun, serial: &Serial<'_>) -> Result<(), String> {
    let Some((position, Decided::Commit(_))) = begun.outcome else { return Ok(()) };
    let Some((_, _, rows)) = states.changes.get(&position) else { return Ok(()) };
    for (key, (_, after)) in *rows {
        let wrote = serial.writes.get(key).ok_or(format!("it changed row {key}, which it never wrote"))?;
        if wrote.as_ref().map(settled) != after.as_ref().map(settled) {
            return Err(format!("row {key} became {after:?} and not {wrote:?}"));
        }
    }
    // Added where somebody who committed meanwhile had deleted the row, and deleted again: nothing is left to change.
    let is_gone = |key: Key| {
        serial.writes.get(&key).is_some_and(Option::is_none)
            && states.changed_between(key, begun.slot, position).is_some()
    };
    let missing =
        serial.writes.keys().find(|key| !rows.contains_key(key) && serial.changes(**key) && !is_gone(**key));
    missing.map_or(Ok(()), |key| Err(format!("its change of row {key} is missing")))
}
