//! `SELECT steeldb.outcome(...)`, which the proxy answers when it is a whole statement.

use pg_query::NodeEnum;
use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{FuncCall, Node, SelectStmt};

use super::modes::constant;
use super::statement::{Argument, StatementKind};

const NAME: [&str; 2] = ["steeldb", "outcome"];

/// The question that a SELECT is, if it is one: the call, of a text or a parameter, and nothing else.
pub(super) fn question(select: &SelectStmt) -> Option<StatementKind> {
    let [target] = select.target_list.as_slice() else { return None };
    let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
    let Some(NodeEnum::FuncCall(call)) = &target.val.as_ref()?.node else { return None };
    if !is_outcome(call) {
        return None;
    }
    let [argument] = call.args.as_slice() else { return None };
    let argument = argument_of(argument)?;
    let rest =
        FuncCall { funcname: Vec::new(), args: Vec::new(), location: 0, funcformat: 0, ..(**call).clone() };
    let around = SelectStmt { target_list: Vec::new(), limit_option: 0, op: 0, ..select.clone() };
    // Another set operation has its targets in its arms.
    if rest != FuncCall::default() || around != SelectStmt::default() {
        return None;
    }
    let column = if target.name.is_empty() { NAME[1].to_string() } else { target.name.clone() };
    Some(StatementKind::Outcome { argument, column })
}

/// Whether a function's name is that of the question.
pub(super) fn is_named(name: &[String]) -> bool {
    name.iter().map(String::as_str).eq(NAME)
}

fn is_outcome(call: &FuncCall) -> bool {
    let name: Option<Vec<String>> = call.funcname.iter().map(constant).collect();
    name.is_some_and(|name| is_named(&name))
}

fn argument_of(node: &Node) -> Option<Argument> {
    match &node.node {
        // A type that is written beside it changes nothing.
        Some(NodeEnum::TypeCast(cast)) => argument_of(cast.arg.as_deref()?),
        Some(NodeEnum::ParamRef(parameter)) => (parameter.number == 1).then_some(Argument::Parameter),
        Some(NodeEnum::AConst(constant)) if constant.isnull => Some(Argument::Text(None)),
        Some(NodeEnum::AConst(constant)) => match constant.val.as_ref()? {
            Val::Sval(text) => Some(Argument::Text(Some(text.sval.clone()))),
            _ => None,
        },
        _ => None,
    }
}
