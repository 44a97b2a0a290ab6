//! How the end of a transaction is told to the application.

use super::transaction::Transaction;
use crate::error::{Disagreement, ShimError};
use steeldb_types::TxId;
use steeldb_wire::transaction::{AbortReason, SqlState};

/// Statement text shown in an error, characters.
const SHOWN_TEXT_CHARS: usize = 400;

/// Statements named when effects differ.
const SUSPECTS_MAX: usize = 3;

/// What makes effects differ between replicas, most likely first.
const SUSPICIOUS: [&str; 12] = [
    "nextval",
    "setval",
    "random",
    "uuid",
    "clock_timestamp",
    "timeofday",
    "statement_timestamp",
    "current_timestamp",
    "now(",
    "limit",
    "on conflict",
    "row_number",
];

pub(super) fn of_abort(transaction: &Transaction, reason: AbortReason) -> ShimError {
    let retry = "Retry the transaction.";
    match reason {
        AbortReason::Client => ShimError::new("40000", "the transaction was rolled back"),
        AbortReason::Mismatch { operation } => {
            of_mismatch(transaction, (operation != 0).then_some(operation), operation == 0)
        }
        // Their sessions are gone, not this one.
        AbortReason::Failed { sqlstate }
            if ["57P", "08"].iter().any(|c| sqlstate.as_str().starts_with(c)) =>
        {
            ShimError::new("40001", "replicas lost their servers while the transaction was open").hint(retry)
        }
        // One that has too much data for one that others may have beside it.
        AbortReason::Failed { sqlstate } if sqlstate == SqlState::BULK_BUSY => ShimError::new(
            "40001",
            "another bulk transaction is under way, or this role has had too many of them in a short time",
        )
        .hint("Retry the transaction later, or send the data in several transactions."),
        AbortReason::Failed { sqlstate } => {
            let message = match sqlstate.as_str() {
                "40001" => "could not serialize access due to concurrent update".to_string(),
                "54000" => "the transaction is too large for its replicas".to_string(),
                "53100" => "too many replicas have no room for the transaction on their disks".to_string(),
                "40P01" => "deadlock detected on a replica".to_string(),
                code if code.starts_with("23") => {
                    "a constraint is violated, found when the transaction was to be committed".to_string()
                }
                _ => "the transaction could not be committed".to_string(),
            };
            let error = ShimError { sqlstate, ..ShimError::new("", message) }
                .detail(format!("Transaction {}.", transaction.tx));
            match sqlstate.as_str() {
                "54000" => error.hint("Split the work into several transactions."),
                code if code.starts_with("40") => error.hint(retry),
                _ => error,
            }
        }
        AbortReason::Expired => {
            ShimError::new("40001", "no quorum of replicas vouched for the transaction in time").hint(retry)
        }
        AbortReason::Walled => {
            ShimError::new("40001", "the transaction was passed by a change of definitions").hint(retry)
        }
        AbortReason::ViewChanged => {
            ShimError::new("40001", "the cluster's membership changed while the transaction was open")
                .hint(retry)
        }
        AbortReason::Void => {
            ShimError::new("40001", "the transaction was void before it began: its outcome was asked for")
                .hint(retry)
        }
        AbortReason::Gone => ShimError::new(
            "25P03",
            "the transaction was ended because its client was idle or away for too long",
        ),
    }
}

/// `operation` is the first that differs, if known; `effects`: results agree and effects do not.
pub(super) fn of_mismatch(transaction: &Transaction, operation: Option<u32>, effects: bool) -> ShimError {
    let text = operation.and_then(|number| transaction.text(number));
    let text = text.or_else(|| suspects(transaction, effects).first().map(|(_, text)| *text));
    let statement = text.unwrap_or_default().to_string();
    let error = told_of_mismatch(transaction, operation, effects);
    ShimError { disagreement: Some(Box::new(Disagreement { effects, statement })), ..error }
}

fn told_of_mismatch(transaction: &Transaction, operation: Option<u32>, effects: bool) -> ShimError {
    let hint = "Give the statement one possible result (a total ORDER BY, no volatile functions), or retry.";
    if let Some((number, text)) = operation.and_then(|number| Some((number, transaction.text(number)?))) {
        return ShimError::new("40000", format!("replicas disagree on the result of statement {number}"))
            .detail(format!("The statement is: {}", shortened(text)))
            .hint(hint);
    }
    let what = if effects { "effects" } else { "results" };
    let error =
        ShimError::new("40000", format!("replicas disagree on the {what} of the transaction")).hint(hint);
    let suspects = suspects(transaction, effects);
    if suspects.is_empty() {
        return error;
    }
    let list: Vec<String> =
        suspects.into_iter().map(|(number, text)| format!("{number}: {}", shortened(text))).collect();
    error.detail(format!("Statements that may differ, the likeliest first: {}", list.join("; ")))
}

pub(super) fn in_doubt(tx: TxId) -> ShimError {
    ShimError::new("08007", format!("it is not known whether transaction {tx} was committed"))
        .detail("Too few replicas answered after COMMIT was sent.")
        .hint(format!("Ask, here or through another proxy: SELECT steeldb.outcome('{tx}')"))
}

pub(super) fn unverified_rollback() -> ShimError {
    ShimError::new(
        "08006",
        "the transaction is rolled back, but too few replicas answered to vouch for what it showed",
    )
}

/// The transaction's statements that may have effects, most suspicious first.
fn suspects(transaction: &Transaction, effects: bool) -> Vec<(u32, &str)> {
    let mut ranked: Vec<(usize, u32, &str)> = transaction
        .operations
        .iter()
        .zip(1u32..)
        .filter(|((_, flags), _)| flags.writes || !effects)
        .map(|((text, _), number)| {
            let lower = text.sql.to_ascii_lowercase();
            let rank = SUSPICIOUS.iter().position(|word| lower.contains(word)).unwrap_or(SUSPICIOUS.len());
            (rank, number, text.sql.as_str())
        })
        .collect();
    ranked.sort_unstable();
    ranked.dedup_by_key(|(_, _, text)| *text);
    ranked.into_iter().take(SUSPECTS_MAX).map(|(_, number, text)| (number, text)).collect()
}

fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(SHOWN_TEXT_CHARS).collect();
    if chars.next().is_some() { head + "..." } else { head }
}
