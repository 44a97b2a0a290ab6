//! Transaction modes, from BEGIN, SET TRANSACTION and the parameters that stand for them.

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, a_const::Val};

/// An isolation level as the client named it. READ UNCOMMITTED and READ COMMITTED are raised to REPEATABLE READ
/// when the transaction begins; SERIALIZABLE is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// READ UNCOMMITTED.
    ReadUncommitted,
    /// READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

impl Isolation {
    /// From PostgreSQL's spelling of a parameter value.
    pub fn parse(value: &str) -> Option<Self> {
        [
            ("read uncommitted", Self::ReadUncommitted),
            ("read committed", Self::ReadCommitted),
            ("repeatable read", Self::RepeatableRead),
            ("serializable", Self::Serializable),
        ]
        .into_iter()
        .find_map(|(name, level)| name.eq_ignore_ascii_case(value).then_some(level))
    }
}

/// What a statement says about a transaction; what it leaves open is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
}

impl TransactionModes {
    /// These modes, with what `later` says put over them.
    pub fn overridden_by(self, later: Self) -> Self {
        Self {
            isolation: later.isolation.or(self.isolation),
            read_only: later.read_only.or(self.read_only),
            deferrable: later.deferrable.or(self.deferrable),
        }
    }

    /// From the option list of BEGIN, START TRANSACTION or SET TRANSACTION.
    pub(super) fn from_options(options: &[Node]) -> Self {
        let mut modes = Self::default();
        for option in options {
            let Some(NodeEnum::DefElem(element)) = &option.node else { continue };
            if let Some(value) = element.arg.as_deref().and_then(constant) {
                modes.assign(&element.defname, &value);
            }
        }
        modes
    }

    /// Sets the mode that parameter `name` (without `default_`) stands for; false when the value is none of its.
    pub(super) fn assign(&mut self, name: &str, value: &str) -> bool {
        match name {
            "transaction_isolation" => {
                self.isolation = Isolation::parse(value);
                self.isolation.is_some()
            }
            "transaction_read_only" => {
                self.read_only = boolean(value);
                self.read_only.is_some()
            }
            "transaction_deferrable" => {
                self.deferrable = boolean(value);
                self.deferrable.is_some()
            }
            _ => false,
        }
    }
}

/// The value of a constant node as a parameter's text.
pub(super) fn constant(node: &Node) -> Option<String> {
    match &node.node {
        Some(NodeEnum::AConst(constant)) => match constant.val.as_ref()? {
            Val::Ival(value) => Some(value.ival.to_string()),
            Val::Fval(value) => Some(value.fval.clone()),
            Val::Boolval(value) => Some(value.boolval.to_string()),
            Val::Sval(value) => Some(value.sval.clone()),
            Val::Bsval(_) => None,
        },
        Some(NodeEnum::String(value)) => Some(value.sval.clone()),
        Some(NodeEnum::Boolean(value)) => Some(value.boolval.to_string()),
        Some(NodeEnum::Integer(value)) => Some(value.ival.to_string()),
        _ => None,
    }
}

/// A boolean as PostgreSQL reads it: any unambiguous beginning of true, false, yes, no, on, off, or 1 and 0.
pub(super) fn boolean(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    match value.as_str() {
        "" | "o" => None,
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        word if "true".starts_with(word) || "yes".starts_with(word) => Some(true),
        word if "false".starts_with(word) || "no".starts_with(word) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_postgresql_reads_them() {
        for text in ["t", "TRUE", "y", "yes", "on", "1"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["f", "false", "n", "no", "of", "off", "0"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        for text in ["", "o", "maybe", "2", "onn"] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }

    #[test]
    fn later_modes_win() {
        let first = TransactionModes { read_only: Some(true), ..Default::default() };
        let later = TransactionModes { read_only: Some(false), deferrable: Some(true), isolation: None };
        assert_eq!(first.overridden_by(later), later);
        assert_eq!(later.overridden_by(TransactionModes::default()), later);
    }
}
