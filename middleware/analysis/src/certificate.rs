//! Which statements can have one result only, as far as the grammar tells (design, section 8): the names in a
//! [`Certificate`] are still to be looked up in the catalogs of a server.
//!
//! The list is one of what is allowed. A node, or a clause of a node, that is not named here is not certified.

use crate::parse;
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, AExpr, AExprKind, CoercionForm, DeleteStmt, FuncCall, InsertStmt, JoinType, LimitOption,
    LockWaitPolicy, Node, OverridingKind, RangeVar, ResTarget, ReturningClause, SelectStmt, SetOperation,
    TypeName, UpdateStmt, a_const,
};
use std::collections::BTreeSet;

/// Words that mean another time on every clock, as input of a date or time.
const CLOCK_WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// A name as the statement says it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    /// The schema, where it is said.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

/// What a certified statement does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// SELECT.
    Select,
    /// INSERT ... VALUES.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
}

/// The grammar of a statement leaves no choice of result, provided that its names mean what they should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// What it does.
    pub command: Command,
    /// Relations, which must be ordinary or partitioned tables.
    pub relations: BTreeSet<Name>,
    /// Functions and aggregates.
    pub functions: BTreeSet<Name>,
    /// Operators.
    pub operators: BTreeSet<Name>,
    /// Types of casts.
    pub types: BTreeSet<Name>,
    /// It says ORDER BY.
    pub sorted: bool,
    /// Highest parameter number.
    pub parameters: u32,
}

/// The certificate of a statement, or none: what is not understood is not certified.
pub fn certificate(sql: &str) -> Option<Certificate> {
    let found = parse::with_stack(sql, || {
        let tree = parse::parse(sql)?;
        let [raw] = tree.stmts.as_slice() else { return Ok(None) };
        let Some(node) = raw.stmt.as_deref().and_then(|node| node.node.as_ref()) else { return Ok(None) };
        Ok(statement(node))
    });
    found.ok().flatten()
}

fn statement(node: &NodeEnum) -> Option<Certificate> {
    let mut certificate = Certificate {
        command: Command::Select,
        relations: BTreeSet::new(),
        functions: BTreeSet::new(),
        operators: BTreeSet::new(),
        types: BTreeSet::new(),
        sorted: false,
        parameters: 0,
    };
    match node {
        NodeEnum::SelectStmt(select) => certificate.select(select)?,
        NodeEnum::InsertStmt(insert) => {
            certificate.command = Command::Insert;
            certificate.insert(insert)?;
        }
        NodeEnum::UpdateStmt(update) => {
            certificate.command = Command::Update;
            certificate.update(update)?;
        }
        NodeEnum::DeleteStmt(delete) => {
            certificate.command = Command::Delete;
            certificate.delete(delete)?;
        }
        _ => return None,
    }
    Some(certificate)
}

/// Goes on only if it holds.
fn only_if(holds: bool) -> Option<()> {
    holds.then_some(())
}

impl Certificate {
    fn select(&mut self, select: &SelectStmt) -> Option<()> {
        only_if(select.into_clause.is_none() && select.with_clause.is_none())?;
        only_if(select.values_lists.is_empty() && select.window_clause.is_empty())?;
        only_if(select.larg.is_none() && select.rarg.is_none() && !select.all)?;
        only_if(select.op == SetOperation::SetopNone as i32)?;
        only_if(select.limit_option != LimitOption::WithTies as i32 && !select.group_distinct)?;
        // DISTINCT is one empty node; DISTINCT ON has expressions.
        only_if(select.distinct_clause.iter().all(|node| node.node.is_none()))?;
        for target in &select.target_list {
            self.target(target)?;
        }
        for from in &select.from_clause {
            self.from(from)?;
        }
        self.optional(select.where_clause.as_deref())?;
        for key in &select.group_clause {
            only_if(matches!(key.node, Some(NodeEnum::ColumnRef(_))))?;
            self.expression(key)?;
        }
        self.optional(select.having_clause.as_deref())?;
        for sort in &select.sort_clause {
            let Some(NodeEnum::SortBy(sort)) = &sort.node else { return None };
            only_if(sort.use_op.is_empty())?;
            self.expression(sort.node.as_deref()?)?;
        }
        self.sorted = !select.sort_clause.is_empty();
        for limit in [&select.limit_offset, &select.limit_count].into_iter().flatten() {
            only_if(matches!(limit.node, Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_))))?;
            self.expression(limit)?;
        }
        for locking in &select.locking_clause {
            let Some(NodeEnum::LockingClause(locking)) = &locking.node else { return None };
            only_if(locking.wait_policy == LockWaitPolicy::LockWaitBlock as i32)?;
        }
        Some(())
    }

    fn insert(&mut self, insert: &InsertStmt) -> Option<()> {
        only_if(insert.on_conflict_clause.is_none() && insert.with_clause.is_none())?;
        only_if(insert.r#override == OverridingKind::OverridingNotSet as i32)?;
        self.relation(insert.relation.as_ref()?)?;
        for column in &insert.cols {
            let Some(NodeEnum::ResTarget(column)) = &column.node else { return None };
            only_if(column.indirection.is_empty() && column.val.is_none())?;
        }
        // None is DEFAULT VALUES.
        if let Some(values) = &insert.select_stmt {
            let Some(NodeEnum::SelectStmt(values)) = &values.node else { return None };
            let alone = SelectStmt {
                values_lists: values.values_lists.clone(),
                limit_option: values.limit_option,
                op: values.op,
                ..SelectStmt::default()
            };
            only_if(**values == alone && !values.values_lists.is_empty())?;
            for row in &values.values_lists {
                let Some(NodeEnum::List(row)) = &row.node else { return None };
                for value in &row.items {
                    self.value(value)?;
                }
            }
        }
        self.returning(insert.returning_clause.as_ref())
    }

    fn update(&mut self, update: &UpdateStmt) -> Option<()> {
        only_if(update.from_clause.is_empty() && update.with_clause.is_none())?;
        self.relation(update.relation.as_ref()?)?;
        for target in &update.target_list {
            let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
            only_if(target.indirection.is_empty())?;
            self.value(target.val.as_deref()?)?;
        }
        self.optional(update.where_clause.as_deref())?;
        self.returning(update.returning_clause.as_ref())
    }

    fn delete(&mut self, delete: &DeleteStmt) -> Option<()> {
        only_if(delete.using_clause.is_empty() && delete.with_clause.is_none())?;
        self.relation(delete.relation.as_ref()?)?;
        self.optional(delete.where_clause.as_deref())?;
        self.returning(delete.returning_clause.as_ref())
    }

    fn returning(&mut self, clause: Option<&ReturningClause>) -> Option<()> {
        let Some(clause) = clause else { return Some(()) };
        only_if(clause.options.is_empty())?;
        clause.exprs.iter().try_for_each(|target| self.target(target))
    }

    fn target(&mut self, target: &Node) -> Option<()> {
        let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
        let ResTarget { indirection, val, .. } = target.as_ref();
        only_if(indirection.is_empty())?;
        self.expression(val.as_deref()?)
    }

    /// A value of INSERT or UPDATE: an expression, or DEFAULT.
    fn value(&mut self, value: &Node) -> Option<()> {
        match &value.node {
            Some(NodeEnum::SetToDefault(_)) => Some(()),
            _ => self.expression(value),
        }
    }

    fn from(&mut self, from: &Node) -> Option<()> {
        match from.node.as_ref()? {
            NodeEnum::RangeVar(relation) => self.relation(relation),
            NodeEnum::JoinExpr(join) => {
                let kinds = [JoinType::JoinInner as i32, JoinType::JoinLeft as i32];
                only_if(kinds.contains(&join.jointype) && !join.is_natural)?;
                only_if(join.using_clause.is_empty() && join.join_using_alias.is_none())?;
                only_if(join.alias.is_none())?;
                self.from(join.larg.as_deref()?)?;
                self.from(join.rarg.as_deref()?)?;
                self.optional(join.quals.as_deref())
            }
            _ => None,
        }
    }

    fn relation(&mut self, relation: &RangeVar) -> Option<()> {
        only_if(relation.catalogname.is_empty() && relation.inh && relation.relpersistence == "p")?;
        only_if(relation.alias.as_ref().is_none_or(|alias| alias.colnames.is_empty()))?;
        let schema = Some(relation.schemaname.clone()).filter(|schema| !schema.is_empty());
        self.relations.insert(Name { schema, name: relation.relname.clone() });
        Some(())
    }

    fn optional(&mut self, node: Option<&Node>) -> Option<()> {
        node.map_or(Some(()), |node| self.expression(node))
    }

    fn all(&mut self, nodes: &[Node]) -> Option<()> {
        nodes.iter().try_for_each(|node| self.expression(node))
    }

    fn expression(&mut self, node: &Node) -> Option<()> {
        match node.node.as_ref()? {
            NodeEnum::ColumnRef(_) => Some(()),
            NodeEnum::AConst(constant) => constant_is_fixed(constant),
            NodeEnum::ParamRef(parameter) => {
                self.parameters = self.parameters.max(u32::try_from(parameter.number).ok()?);
                Some(())
            }
            NodeEnum::AExpr(expression) => self.operation(expression),
            NodeEnum::BoolExpr(expression) => self.all(&expression.args),
            NodeEnum::NullTest(test) => self.expression(test.arg.as_deref()?),
            NodeEnum::BooleanTest(test) => self.expression(test.arg.as_deref()?),
            NodeEnum::FuncCall(call) => self.call(call),
            NodeEnum::TypeCast(cast) => {
                self.type_name(cast.type_name.as_ref()?)?;
                self.expression(cast.arg.as_deref()?)
            }
            NodeEnum::CaseExpr(case) => {
                only_if(case.arg.is_none())?;
                for when in &case.args {
                    let Some(NodeEnum::CaseWhen(when)) = &when.node else { return None };
                    self.expression(when.expr.as_deref()?)?;
                    self.expression(when.result.as_deref()?)?;
                }
                self.optional(case.defresult.as_deref())
            }
            NodeEnum::CoalesceExpr(coalesce) => self.all(&coalesce.args),
            NodeEnum::List(list) => self.all(&list.items),
            _ => None,
        }
    }

    fn operation(&mut self, expression: &AExpr) -> Option<()> {
        match expression.kind() {
            AExprKind::AexprOp | AExprKind::AexprOpAny | AExprKind::AexprOpAll | AExprKind::AexprIn => {
                let name = qualified(&expression.name)?;
                self.operators.insert(name);
            }
            AExprKind::AexprBetween | AExprKind::AexprNotBetween => {
                for name in ["<", "<=", ">", ">="] {
                    self.operators.insert(Name { schema: None, name: name.to_string() });
                }
            }
            _ => return None,
        }
        self.optional(expression.lexpr.as_deref())?;
        self.expression(expression.rexpr.as_deref()?)
    }

    fn call(&mut self, call: &FuncCall) -> Option<()> {
        only_if(call.agg_order.is_empty() && call.agg_filter.is_none() && call.over.is_none())?;
        only_if(!call.agg_within_group && !call.agg_distinct && !call.func_variadic)?;
        only_if(call.funcformat == CoercionForm::CoerceExplicitCall as i32)?;
        let name = qualified(&call.funcname)?;
        self.functions.insert(name);
        self.all(&call.args)
    }

    fn type_name(&mut self, name: &TypeName) -> Option<()> {
        only_if(!name.setof && !name.pct_type && name.array_bounds.is_empty() && name.type_oid == 0)?;
        for modifier in &name.typmods {
            only_if(matches!(modifier.node, Some(NodeEnum::AConst(_))))?;
        }
        let name = qualified(&name.names)?;
        self.types.insert(name);
        Some(())
    }
}

/// A literal that is the same at any time.
fn constant_is_fixed(constant: &AConst) -> Option<()> {
    if let Some(a_const::Val::Sval(text)) = &constant.val {
        let lower = text.sval.to_lowercase();
        only_if(!CLOCK_WORDS.iter().any(|word| lower.contains(word)))?;
    }
    Some(())
}

/// A name of one or two parts.
fn qualified(parts: &[Node]) -> Option<Name> {
    let text = |node: &Node| match &node.node {
        Some(NodeEnum::String(text)) => Some(text.sval.clone()),
        _ => None,
    };
    match parts {
        [name] => Some(Name { schema: None, name: text(name)? }),
        [schema, name] => Some(Name { schema: Some(text(schema)?), name: text(name)? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &BTreeSet<Name>) -> Vec<String> {
        let full = |name: &Name| match &name.schema {
            Some(schema) => format!("{schema}.{}", name.name),
            None => name.name.clone(),
        };
        names.iter().map(full).collect()
    }

    /// The grammar list. What of it is certified in the end is up to the catalogs.
    const CERTIFIABLE: [&str; 24] = [
        "select 1",
        "select * from t where id = 1",
        "select t.* from s.t as t where t.id = $1",
        "select a.x, b.y from a join b on a.id = b.a where a.id in (1, 2, $1)",
        "select a.x from a left join b on a.id = b.a, c where b.id is null and not c.v",
        "select x + 1, coalesce(y, 0), case when x > 1 then 'a' else 'b' end from t",
        "select count(*), sum(v), min(v) from t where v between 1 and 10",
        "select v, count(*) from t group by v having count(*) > 1",
        "select distinct v from t",
        "select id from t order by id desc nulls last limit 10 offset $1",
        "select v from t where id = any($1) and w is true for update",
        "select v::text, cast(w as numeric(10, 2)) from t where id = 1",
        "select steeldb.now() from t where id = 1",
        "select v operator(pg_catalog.+) 1 from t where id = 1",
        "insert into t values (1, 'a', default), (2, $1, $2)",
        "insert into t (id, v) values (1, 1 + 1) returning *",
        "insert into t default values",
        "update t set v = v + 1, w = default where id = 1 returning v",
        "update s.t as x set v = $1 where x.id = $2",
        "delete from t where id = 1 returning *",
        "delete from t where a = 1 and b = $1",
        "table t",
        "select v from t where b and (c or d) and e is not true",
        "select -v from t where id = 1",
    ];

    /// And some of what is not on it.
    const NOT_CERTIFIABLE: [&str; 49] = [
        "",
        "select 1; select 2",
        "not sql",
        "select now() at time zone 'utc'",
        "select current_timestamp",
        "select 'now'::timestamptz",
        "select * from t where at > 'Yesterday'",
        "select extract(year from at) from t where id = 1",
        "select distinct on (v) v, w from t",
        "select row_number() over () from t",
        "select sum(v) over w from t window w as (order by id)",
        "select string_agg(v, ',' order by id) from t",
        "select array_agg(v) filter (where v > 1) from t",
        "select count(distinct v) from t",
        "select percentile_cont(0.5) within group (order by v) from t",
        "select * from t fetch first 3 rows with ties",
        "select * from t limit 1 + 1",
        "select * from t for update skip locked",
        "select * from t for update nowait",
        "select * from only t",
        "select * from t tablesample system (1)",
        "select * from (select 1) s",
        "select * from f()",
        "select * from a natural join b",
        "select * from a join b using (id)",
        "select * from a full join b on a.id = b.id",
        "select (select 1)",
        "select * from t where exists (select 1)",
        "select v from t where v like 'a%'",
        "select v from t where v collate \"C\" = 'a'",
        "select v[1] from t",
        "select (r).f from t",
        "select array[1, 2]",
        "select row(1, 2)",
        "select 1 union select 2",
        "values (1)",
        "with w as (select 1) select * from w",
        "select 1 into x",
        "select v from t group by rollup (v)",
        "select case v when 1 then 2 end from t",
        "insert into t select 1",
        "insert into t values (1) on conflict do nothing",
        "insert into t overriding system value values (1)",
        "update t set v = 1 from s where t.id = s.id",
        "update t set (v, w) = (select 1, 2) where id = 1",
        "delete from t using s where t.id = s.id",
        "create table t (id int)",
        "merge into t using s on t.id = s.id when matched then do nothing",
        "explain select 1",
    ];

    #[test]
    fn the_grammar_list() {
        for sql in CERTIFIABLE {
            assert!(certificate(sql).is_some(), "{sql}");
        }
        for sql in NOT_CERTIFIABLE {
            assert_eq!(certificate(sql), None, "{sql}");
        }
    }

    #[test]
    fn names_are_collected_as_they_are_written() {
        let sql = "select f(a.x), pg_catalog.g($3::int), b.y::s.u from a join s.b on a.id = b.id where a.v between 1 and 2";
        let certificate = certificate(sql).unwrap();
        assert_eq!(names(&certificate.relations), ["a", "s.b"]);
        assert_eq!(names(&certificate.functions), ["f", "pg_catalog.g"]);
        assert_eq!(names(&certificate.operators), ["<", "<=", "=", ">", ">="]);
        assert_eq!(names(&certificate.types), ["pg_catalog.int4", "s.u"]);
        assert_eq!((certificate.sorted, certificate.parameters), (false, 3));
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("select {}1{}", "(".repeat(20_000), ")".repeat(20_000));
        let _ = certificate(&deep);
        let long = format!("select 1 where true{}", " and v = 1".repeat(20_000));
        assert!(certificate(&long).is_some());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(sql: String) {
            let _ = certificate(&sql);
        }
    }
}
