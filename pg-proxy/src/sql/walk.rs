//! One walk over a statement's whole tree, collecting what classification, refusal and rewriting look for.
//!
//! The tree has some 270 kinds of node and gains more with each PostgreSQL release. Instead of naming the fields of
//! each, the walk is a serde serializer that writes nothing: it passes through every field of every node, so that no
//! place where an expression may stand is forgotten, and stops to look at the few kinds listed in `Frame`.

use std::fmt::Display;

use pg_query::protobuf::{LockWaitPolicy, ObjectType, SqlValueFunctionOp};
use serde::ser::{self, Serialize};

/// What was found in a tree. Locations are byte offsets in the query, -1 where the parser gave none.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Kinds of all statement nodes, each once, outermost first.
    pub(super) statements: Vec<&'static str>,
    pub(super) calls: Vec<Call>,
    pub(super) time_keywords: Vec<i32>,
    pub(super) relations: Vec<Relation>,
    pub(super) settings: Vec<Setting>,
    /// Locations of FREEZE among COPY's options.
    pub(super) freezes: Vec<i32>,
    /// Locations of 'now', 'today', ... cast to a date or time type.
    pub(super) moving_dates: Vec<i32>,
    /// Locations of references to ctid, xmin, xmax, cmin, cmax.
    pub(super) system_columns: Vec<(i32, String)>,
    /// LANGUAGE of routines and DO blocks.
    pub(super) languages: Vec<String>,
    pub(super) parameters: u32,
    pub(super) locks: bool,
    pub(super) skip_locked: bool,
    pub(super) concurrently: bool,
    pub(super) set_unlogged: bool,
    /// Kinds of object that DROP, RENAME, OWNER and SET SCHEMA name.
    pub(super) objects: Vec<ObjectType>,
}

/// A function call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: Vec<String>,
    pub(super) location: i32,
    /// Arguments that are plain constants, for set_config alone.
    pub(super) literals: Vec<Literal>,
}

/// A relation as named.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) persistence: char,
    pub(super) location: i32,
}

/// SET of a parameter, as a statement or as a clause of a routine.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) kind: i32,
    pub(super) name: String,
    pub(super) values: Vec<Literal>,
}

/// A constant and where it stands; `None` when it is not a string.
#[derive(Debug)]
pub(super) struct Literal {
    pub(super) location: i32,
    pub(super) text: Option<String>,
}

/// Walks `tree`.
pub(super) fn walk(tree: &impl Serialize) -> Findings {
    let mut walker = Walker::default();
    // The walker itself never fails.
    let _ = tree.serialize(&mut walker);
    walker.found
}

const SYSTEM_COLUMNS: [&str; 5] = ["ctid", "xmin", "xmax", "cmin", "cmax"];
const MOVING_DATES: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
const DATE_TYPES: [&str; 5] = ["date", "time", "timetz", "timestamp", "timestamptz"];

#[derive(Default)]
struct Walker {
    found: Findings,
    depth: usize,
    /// Strings passed since it was last set, while someone collects them.
    texts: Option<Vec<String>>,
    /// String constants passed with their depth, while someone collects them.
    literals: Option<Vec<(usize, Literal)>>,
    /// The last number, bool and string constant that was passed.
    number: i64,
    truth: bool,
    constant: String,
    constant_is_text: bool,
    in_constant: bool,
    /// Depth and location of the last constant that named a moving date.
    moving: Option<(usize, i32)>,
    is_system_column: bool,
    last_text: String,
}

/// The node whose fields are being passed, for kinds that matter.
enum Frame {
    Other,
    FuncCall { name: Vec<String>, literals: Vec<Literal> },
    SqlValueFunction { op: i64 },
    TypeCast { moving: Option<i32> },
    AConst,
    ColumnRef { name: Option<String> },
    AIndirection,
    ParamRef,
    LockingClause,
    RangeVar(Relation),
    VariableSetStmt(Setting),
    DefElem { name: String, text: Option<String> },
    Concurrent,
    AlterTableCmd,
    Objects,
}

impl Walker {
    fn strings(&mut self, value: &(impl Serialize + ?Sized)) -> Result<Vec<String>, Never> {
        let outer = self.texts.replace(Vec::new());
        value.serialize(&mut *self)?;
        Ok(std::mem::replace(&mut self.texts, outer).unwrap_or_default())
    }

    fn text(&mut self, value: &(impl Serialize + ?Sized)) -> Result<String, Never> {
        Ok(self.strings(value)?.pop().unwrap_or_default())
    }

    /// The constants that stand directly in the list `value`.
    fn constants(&mut self, value: &(impl Serialize + ?Sized)) -> Result<Vec<Literal>, Never> {
        let outer = self.literals.replace(Vec::new());
        value.serialize(&mut *self)?;
        let all = std::mem::replace(&mut self.literals, outer).unwrap_or_default();
        // A list's element is a Node around the constant.
        let depth = self.depth + 2;
        Ok(all.into_iter().filter(|(at, _)| *at == depth).map(|(_, literal)| literal).collect())
    }

    fn enter(&mut self, name: &'static str) -> Frame {
        self.depth += 1;
        match name {
            "FuncCall" => Frame::FuncCall { name: Vec::new(), literals: Vec::new() },
            "SqlValueFunction" => Frame::SqlValueFunction { op: 0 },
            "TypeCast" => Frame::TypeCast { moving: None },
            "AConst" => {
                self.constant.clear();
                self.constant_is_text = false;
                Frame::AConst
            }
            "ColumnRef" => Frame::ColumnRef { name: None },
            "AIndirection" => Frame::AIndirection,
            "ParamRef" => Frame::ParamRef,
            "LockingClause" => {
                self.found.locks = true;
                Frame::LockingClause
            }
            "RangeVar" => Frame::RangeVar(Relation {
                schema: String::new(),
                name: String::new(),
                persistence: 'p',
                location: -1,
            }),
            "VariableSetStmt" => {
                self.statement(name);
                Frame::VariableSetStmt(Setting { kind: 0, name: String::new(), values: Vec::new() })
            }
            "DefElem" => Frame::DefElem { name: String::new(), text: None },
            "AlterTableCmd" => Frame::AlterTableCmd,
            "PartitionCmd" => Frame::Concurrent,
            "IndexStmt" | "RefreshMatViewStmt" => {
                self.statement(name);
                Frame::Concurrent
            }
            "DropStmt" | "RenameStmt" | "AlterOwnerStmt" | "AlterObjectSchemaStmt" => {
                self.statement(name);
                Frame::Objects
            }
            other => {
                if other.ends_with("Stmt") {
                    self.statement(other);
                }
                Frame::Other
            }
        }
    }

    fn statement(&mut self, name: &'static str) {
        if !self.found.statements.contains(&name) {
            self.found.statements.push(name);
        }
    }

    fn field(
        &mut self,
        frame: &mut Frame,
        key: &'static str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), Never> {
        match (frame, key) {
            (Frame::FuncCall { name, .. }, "funcname") => *name = self.strings(value)?,
            (Frame::FuncCall { name, literals }, "args")
                if name.last().is_some_and(|name| name == "set_config") =>
            {
                *literals = self.constants(value)?;
            }
            (Frame::SqlValueFunction { op }, "op") => {
                value.serialize(&mut *self)?;
                *op = self.number;
            }
            (Frame::TypeCast { moving }, "arg") => {
                self.moving = None;
                value.serialize(&mut *self)?;
                let direct = self.depth + 2;
                *moving = self.moving.filter(|(depth, _)| *depth == direct).map(|(_, location)| location);
            }
            (Frame::TypeCast { moving: Some(location) }, "type_name") => {
                let location = *location;
                let names = self.strings(value)?;
                if names.iter().any(|name| DATE_TYPES.contains(&name.as_str())) {
                    self.found.moving_dates.push(location);
                }
            }
            (Frame::ColumnRef { name }, "fields") => {
                self.is_system_column = false;
                value.serialize(&mut *self)?;
                *name = self.is_system_column.then(|| self.last_text.clone());
            }
            (Frame::AIndirection, "indirection") => {
                self.is_system_column = false;
                value.serialize(&mut *self)?;
                if self.is_system_column {
                    self.found.system_columns.push((-1, self.last_text.clone()));
                }
            }
            (Frame::ParamRef, "number") => {
                value.serialize(&mut *self)?;
                self.found.parameters = self.found.parameters.max(u32::try_from(self.number).unwrap_or(0));
            }
            (Frame::LockingClause, "wait_policy") => {
                value.serialize(&mut *self)?;
                self.found.skip_locked |= self.number == LockWaitPolicy::LockWaitSkip as i64;
            }
            (Frame::RangeVar(relation), "schemaname") => relation.schema = self.text(value)?,
            (Frame::RangeVar(relation), "relname") => relation.name = self.text(value)?,
            (Frame::RangeVar(relation), "relpersistence") => {
                relation.persistence = self.text(value)?.chars().next().unwrap_or('p');
            }
            (Frame::VariableSetStmt(setting), "kind") => {
                value.serialize(&mut *self)?;
                setting.kind = self.number as i32;
            }
            (Frame::VariableSetStmt(setting), "name") => setting.name = self.text(value)?.to_lowercase(),
            (Frame::VariableSetStmt(setting), "args") => setting.values = self.constants(value)?,
            (Frame::DefElem { name, .. }, "defname") => *name = self.text(value)?,
            (Frame::DefElem { name, text }, "arg")
                if matches!(name.as_str(), "language" | "concurrently") =>
            {
                *text = Some(self.text(value)?);
            }
            (Frame::Concurrent, "concurrent") => {
                value.serialize(&mut *self)?;
                self.found.concurrently |= self.truth;
            }
            (Frame::AlterTableCmd, "subtype") => {
                value.serialize(&mut *self)?;
                let unlogged = pg_query::protobuf::AlterTableType::AtSetUnLogged as i64;
                self.found.set_unlogged |= self.number == unlogged;
            }
            (Frame::Objects, "concurrent") => {
                value.serialize(&mut *self)?;
                self.found.concurrently |= self.truth;
            }
            (Frame::Objects, "remove_type" | "rename_type" | "object_type") => {
                value.serialize(&mut *self)?;
                self.found.objects.extend(ObjectType::try_from(self.number as i32).ok());
            }
            (frame, "location") => {
                value.serialize(&mut *self)?;
                self.locate(frame, self.number as i32);
            }
            (_, _) => value.serialize(&mut *self)?,
        }
        Ok(())
    }

    /// Sees the field `location`, which comes after all others that matter in the kinds that are looked at here.
    fn locate(&mut self, frame: &mut Frame, location: i32) {
        match frame {
            Frame::FuncCall { name, literals } => self.found.calls.push(Call {
                name: std::mem::take(name),
                literals: std::mem::take(literals),
                location,
            }),
            Frame::SqlValueFunction { op } => {
                let times =
                    SqlValueFunctionOp::SvfopCurrentDate as i64..SqlValueFunctionOp::SvfopCurrentRole as i64;
                if times.contains(op) || *op == SqlValueFunctionOp::SvfopCurrentSchema as i64 {
                    self.found.time_keywords.push(location);
                }
            }
            Frame::ColumnRef { name: Some(name) } => {
                self.found.system_columns.push((location, std::mem::take(name)));
            }
            Frame::RangeVar(relation) => relation.location = location,
            Frame::DefElem { name, .. } if name == "freeze" => self.found.freezes.push(location),
            _ => {}
        }
    }

    fn leave(&mut self, frame: Frame, location: i32) {
        match frame {
            Frame::AConst => {
                if self.constant_is_text && names_moving_date(&self.constant) {
                    self.moving = Some((self.depth, location));
                }
                let depth = self.depth;
                if let Some(literals) = &mut self.literals {
                    let text = self.constant_is_text.then(|| self.constant.clone());
                    literals.push((depth, Literal { location, text }));
                }
            }
            Frame::RangeVar(relation) => self.found.relations.push(relation),
            Frame::VariableSetStmt(setting) => self.found.settings.push(setting),
            Frame::DefElem { name, text: Some(text) } => match name.as_str() {
                "language" => self.found.languages.push(text),
                _ => self.found.concurrently = true,
            },
            Frame::DefElem { name, text: None } if name == "concurrently" => self.found.concurrently = true,
            _ => {}
        }
        self.depth -= 1;
    }
}

fn names_moving_date(text: &str) -> bool {
    text.len() <= 128
        && text
            .split(|c: char| !c.is_ascii_alphabetic())
            .any(|word| MOVING_DATES.iter().any(|name| name.eq_ignore_ascii_case(word)))
}

/// The error of a serializer that cannot fail.
#[derive(Debug)]
struct Never;

impl Display for Never {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("never")
    }
}

impl std::error::Error for Never {}

impl ser::Error for Never {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// The fields of one node.
struct Fields<'a> {
    walker: &'a mut Walker,
    frame: Frame,
    location: i32,
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Never;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Never> {
        self.walker.field(&mut self.frame, key, value)?;
        if key == "location" {
            self.location = self.walker.number as i32;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Never> {
        self.walker.leave(self.frame, self.location);
        Ok(())
    }
}

/// Elements of a list, or of anything else without field names.
struct Elements<'a>(&'a mut Walker);

macro_rules! elements {
    ($($kind:ident $method:ident),*) => {$(
        impl ser::$kind for Elements<'_> {
            type Ok = ();
            type Error = Never;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
                value.serialize(&mut *self.0)
            }

            fn end(self) -> Result<(), Never> {
                Ok(())
            }
        }
    )*};
}

elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! numbers {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), Never> {
            self.number = i64::try_from(value).unwrap_or(i64::MAX);
            Ok(())
        }
    )*};
}

macro_rules! ignored {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, _: $type) -> Result<(), Never> {
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for &'a mut Walker {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Elements<'a>;
    type SerializeTupleStruct = Elements<'a>;
    type SerializeTupleVariant = Elements<'a>;
    type SerializeMap = ser::Impossible<(), Never>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = ser::Impossible<(), Never>;

    numbers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    );
    ignored!(serialize_f32 f32, serialize_f64 f64, serialize_char char, serialize_bytes &[u8]);

    fn serialize_bool(self, value: bool) -> Result<(), Never> {
        self.truth = value;
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Never> {
        self.is_system_column = SYSTEM_COLUMNS.contains(&value);
        if self.is_system_column {
            value.clone_into(&mut self.last_text);
        }
        if self.in_constant {
            value.clone_into(&mut self.constant);
        }
        if let Some(texts) = &mut self.texts {
            texts.push(value.to_owned());
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Never> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Never> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Never> {
        Ok(())
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Never> {
        if name.ends_with("Stmt") {
            self.statement(name);
        }
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Never> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        if (name, variant) != ("Val", "Sval") {
            return value.serialize(self);
        }
        self.constant_is_text = true;
        self.in_constant = true;
        value.serialize(&mut *self)?;
        self.in_constant = false;
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'a>, Never> {
        Ok(Elements(self))
    }

    fn serialize_tuple(self, _: usize) -> Result<Elements<'a>, Never> {
        Ok(Elements(self))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Elements<'a>, Never> {
        Ok(Elements(self))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Elements<'a>, Never> {
        Ok(Elements(self))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Never> {
        Err(Never)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields<'a>, Never> {
        let frame = self.enter(name);
        Ok(Fields { walker: self, frame, location: -1 })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Never> {
        Err(Never)
    }
}
