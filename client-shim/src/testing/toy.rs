//! The toy language that fake replicas run. It looks like SQL, so that it passes the proxy's analysis. `fail_23505` anywhere in a statement makes it
//! fail with that SQLSTATE, in every other transaction alone if `odd_` is there too, `rows_7` makes it answer seven rows, `diverge` lets each replica answer its own number, `$1`
//! answers the first parameter. Otherwise SELECT and SHOW answer one row with their own text, COPY takes or gives data,
//! SET reports a parameter, and what begins with INSERT, UPDATE, DELETE or CREATE writes.

use super::Lie;
use crate::message::messages;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::{Operation, OperationKind};

pub(super) fn execute(sql: &str, operation: &Operation, failed: bool, at: ReplicaId, lie: Lie) -> Vec<u8> {
    let upper = sql.to_ascii_uppercase();
    if failed && !upper.starts_with("ROLLBACK TO") {
        return error("25P02", "current transaction is aborted");
    }
    let first = upper.split_whitespace().next().unwrap_or_default();
    let parameters: u16 = (1..=9).rev().find(|number| sql.contains(&format!("${number}"))).unwrap_or(0);
    let has_rows = matches!(first, "SELECT" | "SHOW" | "VALUES");
    let columns = if has_rows { columns() } else { message(b'n', &[]) };
    let spared = sql.contains("odd_") && operation.tx.counter.is_multiple_of(2);
    let fails = sql.find("fail_").filter(|_| !spared).and_then(|at| sql.get(at + 5..at + 10));
    if operation.kind == OperationKind::Describe {
        if let Some(code) = fails.filter(|code| code.starts_with("42")) {
            return error(code, "cannot be parsed");
        }
        let mut types = parameters.to_be_bytes().to_vec();
        for _ in 0..parameters {
            types.extend(25u32.to_be_bytes());
        }
        return [message(b't', &types), columns].concat();
    }
    if let Some(code) = fails {
        return error(code, &format!("failed: {sql}"));
    }
    let bind = match &operation.kind {
        OperationKind::Execute { bind } | OperationKind::CopyIn { bind } => bind.as_slice(),
        OperationKind::Describe => &[],
    };
    let rows: usize = sql
        .split_once("rows_")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or(1);
    let value = |number: usize| match lie {
        Lie::OtherRows => b"a lie".to_vec(),
        _ if sql.contains("diverge") => at.to_string().into_bytes(),
        _ if parameters > 0 => first_parameter(bind).unwrap_or_default(),
        _ if rows > 1 => format!("row {number}").into_bytes(),
        _ => sql.as_bytes().get(first.len() + 1..).unwrap_or_default().to_vec(),
    };
    match first {
        "" => [columns, message(b'I', &[])].concat(),
        "SELECT" | "SHOW" | "VALUES" => {
            let mut answer = columns;
            for number in 0..rows {
                answer.extend(row(&value(number)));
            }
            answer.extend(tag(&format!("SELECT {rows}")));
            answer
        }
        "SET" => {
            let mut words = sql.split_whitespace();
            let (name, value) = (words.nth(1).unwrap_or_default(), words.next_back().unwrap_or_default());
            [columns, message(b'S', format!("{name}\0{value}\0").as_bytes()), tag("SET")].concat()
        }
        "COPY" if matches!(operation.kind, OperationKind::CopyIn { .. }) => tag("COPY 1"),
        "COPY" => [
            columns,
            message(b'H', &[0, 0, 0]),
            message(b'd', b"one\n"),
            message(b'd', b"two\n"),
            message(b'c', &[]),
            tag("COPY 2"),
        ]
        .concat(),
        "INSERT" => [columns, tag("INSERT 0 1")].concat(),
        other => [columns, tag(other)].concat(),
    }
}

/// The first parameter's value, of the rest of a Bind message.
fn first_parameter(bind: &[u8]) -> Option<Vec<u8>> {
    let formats = usize::from(u16::from_be_bytes(*bind.first_chunk()?));
    let rest = bind.get(2 + formats * 2 + 2..)?;
    let length = usize::try_from(i32::from_be_bytes(*rest.first_chunk()?)).ok()?;
    Some(rest.get(4..4 + length)?.to_vec())
}

/// A backend message.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

pub(super) fn copy_request() -> Vec<u8> {
    [message(b'n', &[]), message(b'G', &[0, 0, 0])].concat()
}

pub(super) fn tag(text: &str) -> Vec<u8> {
    message(b'C', format!("{text}\0").as_bytes())
}

pub(super) fn error(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0M{text}\0P3\0\0").as_bytes())
}

fn row(value: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend((value.len() as u32).to_be_bytes());
    body.extend(value);
    message(b'D', &body)
}

fn columns() -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(b"value\0");
    body.extend(0u32.to_be_bytes());
    body.extend([0, 0]);
    body.extend(25u32.to_be_bytes());
    body.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    message(b'T', &body)
}

pub(super) fn pieces(answer: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    for part in messages(answer).flatten() {
        if let Some(last) = pieces.last_mut() {
            last.extend(part.whole);
            if last.len() >= bytes {
                pieces.push(Vec::new());
            }
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
