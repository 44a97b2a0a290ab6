//! What an analysed query tree leaves open, in OIDs: what is still to be asked of the catalogs.
//!
//! As in the grammar, the list is one of what is allowed.

use super::tree::{Object, Tree};
use std::collections::BTreeSet;

/// Types whose literals and parameters mean the same at any time, and whose values are written alike everywhere. Those of
/// dates and times are not among them: `'now'` is a value of theirs.
const FIXED_TYPES: [u32; 22] = [
    16, 17, 20, 21, 23, 25, 700, 701, 705, 1042, 1043, 1700, 2950, 3802, 1000, 1005, 1007, 1016, 1009, 1015,
    1231, 2951,
];

/// Types of columns that may be read and written: those above but for arrays and unknown, dates and times, name, "char".
pub(super) const COLUMN_TYPES: [u32; 21] = [
    16, 17, 18, 19, 20, 21, 23, 25, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1700, 2950,
    3802,
];

/// Types of which two equal values are the same value, to the letter: not those of numbers with a scale or a sign of zero.
const IDENTICAL_TYPES: [u32; 14] = [16, 17, 18, 19, 20, 21, 23, 25, 1043, 1082, 1083, 1114, 1184, 2950];

/// Aggregates whose result does not depend on the order of rows, and that do not fail.
const AGGREGATES: [u32; 30] = [
    2803, 2147, // count
    2107, 2108, 2109, 2114, // sum of int8, int4, int2, numeric
    2100, 2101, 2102, 2103, // avg of them
    2115, 2116, 2117, 2118, 2122, 2123, 2126, 2127,
    2129, // max of int8, int4, int2, oid, date, time, timestamps, text
    2131, 2132, 2133, 2134, 2138, 2139, 2142, 2143, 2145, // min of them
    2517, 2518, // bool_and, bool_or
];

/// What is still to be looked up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Shape {
    /// Tables that are read or written.
    pub relations: BTreeSet<u32>,
    /// The table that is written.
    pub target: Option<u32>,
    /// UPDATE or DELETE.
    pub changes_rows: bool,
    /// Functions that must be immutable, built in and unable to fail.
    pub safe: BTreeSet<u32>,
    /// Functions that must be immutable and built in; they are called for one row, on its values.
    pub immutable: BTreeSet<u32>,
    /// Of the only table: columns that the statement holds to one value, with the operator of equality.
    pub pins: BTreeSet<(u16, u32)>,
    /// The pins must hold it to one row.
    pub must_pin: bool,
    /// These columns of the only table must be, or contain, a unique key; unless the pins hold it to one row.
    pub must_be_key: Option<BTreeSet<u16>>,
}

/// What fails in an expression is the same everywhere only where it is certain to be evaluated, and when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failing {
    /// Nothing may: rows come in any order, and a plan may evaluate for more of them.
    Nowhere,
    /// What depends on the values of the one row that there is. (What does not may be evaluated without a row, or not.)
    OfTheRow,
    /// Everything: it is the only row of an INSERT.
    Everywhere,
}

/// What a statement's tree leaves to look up; none if it is not one that can be certified. `row_order`: its rows are
/// compared in sequence, whatever it says itself.
pub(super) fn shape(tree: &Tree, row_order: bool) -> Option<Shape> {
    let Tree::List(queries) = tree else { return None };
    let [query] = queries.as_slice() else { return None };
    let query = query.object().filter(|query| query.tag == "QUERY")?;
    for flag in [
        "hasWindowFuncs",
        "hasTargetSRFs",
        "hasSubLinks",
        "hasDistinctOn",
        "hasRecursive",
        "hasModifyingCTE",
        "hasRowSecurity",
        "groupDistinct",
    ] {
        only_if(query.says(flag, "false"))?;
    }
    for clause in ["cteList", "groupingSets", "windowClause", "withCheckOptions", "mergeActionList"] {
        only_if(query.list(clause)?.is_empty())?;
    }
    for clause in ["utilityStmt", "onConflict", "setOperations"] {
        only_if(query.says(clause, "<>"))?;
    }
    let mut found = Found::default();
    found.range_table(query)?;
    let (inserts, changes) = match query.atom("commandType")? {
        "1" => (false, false),
        "3" => (true, false),
        "2" | "4" => (false, true),
        _ => return None,
    };
    let result_relation: usize = query.number("resultRelation")?;
    if result_relation > 0 {
        found.shape.target = Some(*found.relation_of.get(result_relation - 1)?.as_ref()?);
    }
    found.shape.changes_rows = changes;
    found.shape.must_pin = changes;

    found.join_tree(query.field("jointree")?)?;
    let (targets, returned) = (query.list("targetList")?, query.list("returningList")?);
    let groups = query.list("groupClause")?;
    let aggregates = !query.says("hasAggs", "false");
    let failing = match (inserts, found.rows_of_values) {
        (true, false) => Failing::Everywhere,
        (false, _) if found.is_single() && !aggregates && groups.is_empty() => Failing::OfTheRow,
        _ => Failing::Nowhere,
    };
    found.targets(targets, failing)?;
    found.targets(returned, if failing == Failing::Everywhere { Failing::OfTheRow } else { failing })?;
    found.optional(query.field("havingQual")?, Failing::Nowhere)?;
    found.optional(query.field("limitOffset")?, Failing::Nowhere)?;
    found.optional(query.field("limitCount")?, Failing::Nowhere)?;
    for mark in query.list("rowMarks")? {
        only_if(mark.object()?.says("waitPolicy", "0"))?;
    }
    if !inserts {
        // A function that may fail is called for one row.
        found.shape.must_pin |= !found.shape.immutable.is_empty();
    }
    let limited = !query.says("limitOffset", "<>") || !query.says("limitCount", "<>");
    if result_relation == 0 {
        found.order(query, targets, groups, aggregates, row_order || limited)?;
    }
    Some(found.shape)
}

fn only_if(holds: bool) -> Option<()> {
    holds.then_some(())
}

/// Whether a list of OIDs has one.
fn among(list: &[u32], oid: u32) -> bool {
    list.contains(&oid)
}

/// The default collation, or C; or none.
fn collation_is_plain(object: &Object) -> Option<()> {
    only_if([0, 100, 950].contains(&object.number::<u32>("inputcollid")?))
}

#[derive(Default)]
struct Found {
    shape: Shape,
    /// By place in the range table: the table it is, if it is one.
    relation_of: Vec<Option<u32>>,
    rows_of_values: bool,
}

impl Found {
    fn range_table(&mut self, query: &Object) -> Option<()> {
        for entry in query.list("rtable")? {
            let entry = entry.object().filter(|entry| entry.tag == "RANGETBLENTRY")?;
            only_if(entry.says("lateral", "false") && entry.list("securityQuals")?.is_empty())?;
            match entry.atom("rtekind")? {
                "0" => {
                    only_if(matches!(entry.atom("relkind")?, "r" | "p") && entry.says("tablesample", "<>"))?;
                    let relation = entry.number("relid")?;
                    self.shape.relations.insert(relation);
                    self.relation_of.push(Some(relation));
                }
                "2" => self.relation_of.push(None),
                "5" => {
                    self.rows_of_values = true;
                    self.relation_of.push(None);
                    for row in entry.list("values_lists")? {
                        let Tree::List(values) = row else { return None };
                        for value in values {
                            self.expression(value, Failing::Nowhere)?;
                        }
                    }
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// There is one table and nothing joined to it.
    fn is_single(&self) -> bool {
        matches!(self.relation_of.as_slice(), [Some(_)])
    }

    fn join_tree(&mut self, tree: &Tree) -> Option<()> {
        let node = tree.object()?;
        match node.tag.as_str() {
            "RANGETBLREF" => Some(()),
            "FROMEXPR" => {
                for from in node.list("fromlist")? {
                    self.join_tree(from)?;
                }
                self.pins(node.field("quals")?);
                self.optional(node.field("quals")?, Failing::Nowhere)
            }
            "JOINEXPR" => {
                only_if(node.says("isNatural", "false"))?;
                self.join_tree(node.field("larg")?)?;
                self.join_tree(node.field("rarg")?)?;
                self.optional(node.field("quals")?, Failing::Nowhere)
            }
            _ => None,
        }
    }

    /// Columns that a condition holds to one value.
    fn pins(&mut self, quals: &Tree) {
        let Some(node) = quals.object().filter(|_| self.is_single()) else { return };
        match node.tag.as_str() {
            "BOOLEXPR" if node.says("boolop", "and") => {
                for arg in node.list("args").unwrap_or_default() {
                    self.pins(arg);
                }
            }
            "OPEXPR" => {
                let Some([left, right]) = node.list("args") else { return };
                for (one, other) in [(left, right), (right, left)] {
                    if let (Some(column), false, Some(operator)) =
                        (column(one), has_column(other), node.number("opno"))
                    {
                        self.shape.pins.insert((column, operator));
                    }
                }
            }
            _ => {}
        }
    }

    fn targets(&mut self, targets: &[Tree], failing: Failing) -> Option<()> {
        for target in targets {
            let target = target.object().filter(|target| target.tag == "TARGETENTRY")?;
            self.expression(target.field("expr")?, failing)?;
        }
        Some(())
    }

    fn optional(&mut self, tree: &Tree, failing: Failing) -> Option<()> {
        match tree {
            Tree::Atom(nothing) if nothing == "<>" => Some(()),
            tree => self.expression(tree, failing),
        }
    }

    fn function(&mut self, oid: u32, tree: &Tree, failing: Failing) {
        let may_fail = match failing {
            Failing::Nowhere => false,
            Failing::OfTheRow => has_column(tree),
            Failing::Everywhere => true,
        };
        let list = if may_fail { &mut self.shape.immutable } else { &mut self.shape.safe };
        list.insert(oid);
    }

    fn expression(&mut self, tree: &Tree, failing: Failing) -> Option<()> {
        let node = tree.object()?;
        match node.tag.as_str() {
            "VAR" => {
                only_if(node.says("varlevelsup", "0") && node.number::<u16>("varattno")? > 0)?;
                only_if(among(&COLUMN_TYPES, node.number("vartype")?))
            }
            "CONST" => {
                let oid = node.number("consttype")?;
                only_if(
                    among(&FIXED_TYPES, oid) || node.says("constisnull", "true") && among(&COLUMN_TYPES, oid),
                )
            }
            "PARAM" => only_if(node.says("paramkind", "0") && among(&FIXED_TYPES, node.number("paramtype")?)),
            "OPEXPR" | "SCALARARRAYOPEXPR" => {
                only_if(node.tag != "OPEXPR" || node.says("opretset", "false"))?;
                collation_is_plain(node)?;
                self.function(node.number("opfuncid")?, tree, failing);
                self.list(node, "args", failing)
            }
            "FUNCEXPR" => {
                only_if(node.says("funcretset", "false") && node.says("funcvariadic", "false"))?;
                collation_is_plain(node)?;
                self.function(node.number("funcid")?, tree, failing);
                self.list(node, "args", failing)
            }
            "AGGREF" => {
                only_if(among(&AGGREGATES, node.number("aggfnoid")?))?;
                only_if(node.says("aggkind", "n") && node.says("agglevelsup", "0"))?;
                only_if(node.says("aggfilter", "<>") && node.list("aggdirectargs")?.is_empty())?;
                only_if(node.list("aggorder")?.is_empty() && node.list("aggdistinct")?.is_empty())?;
                collation_is_plain(node)?;
                self.targets(node.list("args")?, Failing::Nowhere)
            }
            "ARRAYEXPR" => {
                only_if(among(&FIXED_TYPES, node.number("array_typeid")?))?;
                self.list(node, "elements", failing)
            }
            "BOOLEXPR" | "COALESCEEXPR" => self.list(node, "args", failing),
            "NULLTEST" => {
                only_if(node.says("argisrow", "false"))?;
                self.expression(node.field("arg")?, failing)
            }
            "BOOLEANTEST" | "RELABELTYPE" => self.expression(node.field("arg")?, failing),
            "CASEEXPR" => {
                only_if(node.says("arg", "<>"))?;
                for when in node.list("args")? {
                    let when = when.object().filter(|when| when.tag == "CASEWHEN")?;
                    self.expression(when.field("expr")?, failing)?;
                    self.expression(when.field("result")?, failing)?;
                }
                self.optional(node.field("defresult")?, failing)
            }
            _ => None,
        }
    }

    fn list(&mut self, node: &Object, field: &str, failing: Failing) -> Option<()> {
        node.list(field)?.iter().try_for_each(|item| self.expression(item, failing))
    }

    /// Whether which rows there are, and in what sequence where that counts, is the same everywhere.
    fn order(
        &mut self,
        query: &Object,
        targets: &[Tree],
        groups: &[Tree],
        aggregates: bool,
        in_sequence: bool,
    ) -> Option<()> {
        // Of values that are equal and not identical, any may stand for a group.
        let distinct = query.list("distinctClause")?;
        for clause in groups.iter().chain(distinct) {
            only_if(is_identical(target_of(targets, clause)?))?;
        }
        if !in_sequence || aggregates && groups.is_empty() {
            return Some(());
        }
        let sorts = query.list("sortClause")?;
        let sorted: Option<Vec<&Object>> = sorts.iter().map(|sort| target_of(targets, sort)).collect();
        let sorted = sorted?;
        let is_sorted = |target: &Object| {
            is_identical(target) && sorted.iter().any(|sort| sort.field("resno") == target.field("resno"))
        };
        let shown = targets.iter().filter_map(Tree::object).filter(|target| target.says("resjunk", "false"));
        let grouped: Option<Vec<&Object>> = groups.iter().map(|group| target_of(targets, group)).collect();
        if shown.clone().all(is_sorted) || !groups.is_empty() && grouped?.into_iter().all(is_sorted) {
            return Some(());
        }
        only_if(self.is_single() && groups.is_empty())?;
        let columns = sorted.iter().filter_map(|sort| column(sort.field("expr")?)).collect();
        self.shape.must_be_key = Some(columns);
        Some(())
    }
}

/// The number of the column that an expression is, whatever its type is called.
fn column(tree: &Tree) -> Option<u16> {
    let node = tree.object()?;
    match node.tag.as_str() {
        "VAR" => node.number("varattno"),
        "RELABELTYPE" => column(node.field("arg")?),
        _ => None,
    }
}

/// Whether an expression depends on a row, in a way that no planner can do without.
fn has_column(tree: &Tree) -> bool {
    match tree {
        Tree::Object(node) if node.tag == "VAR" => true,
        Tree::Object(node) => node.values().any(has_column),
        Tree::List(items) => items.iter().any(has_column),
        Tree::Atom(_) => false,
    }
}

/// The target that a sort or group clause refers to.
fn target_of<'a>(targets: &'a [Tree], clause: &Tree) -> Option<&'a Object> {
    let wanted = clause.object()?.field("tleSortGroupRef")?;
    targets.iter().filter_map(Tree::object).find(|target| target.field("ressortgroupref") == Some(wanted))
}

/// Whether two values of a target that are equal are the same to the letter.
fn is_identical(target: &Object) -> bool {
    let type_of = |node: &Object| match node.tag.as_str() {
        "VAR" => node.number("vartype"),
        "CONST" => node.number("consttype"),
        "PARAM" => node.number("paramtype"),
        "OPEXPR" => node.number("opresulttype"),
        "FUNCEXPR" => node.number("funcresulttype"),
        "AGGREF" => node.number("aggtype"),
        "RELABELTYPE" => node.number("resulttype"),
        "COALESCEEXPR" => node.number("coalescetype"),
        "CASEEXPR" => node.number("casetype"),
        "BOOLEXPR" | "NULLTEST" | "BOOLEANTEST" | "SCALARARRAYOPEXPR" => Some(16),
        _ => None,
    };
    let oid = target.field("expr").and_then(Tree::object).and_then(type_of);
    oid.is_some_and(|oid| among(&IDENTICAL_TYPES, oid))
}
