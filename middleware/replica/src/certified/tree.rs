//! PostgreSQL's analysed query trees in their text form, as `debug_print_rewritten` shows them.
//!
//! Names that a user has chosen stand in the text without a length. Blanks and brackets in them are escaped, a leading
//! colon is not: it looks like a field. So an object with a field twice, or with one without a value, is none.

use std::collections::BTreeMap;

/// Levels of nesting taken at most; the rest of the agent's work happens on the same stack.
const DEPTH_MAX: usize = 200;

/// A node of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Tree {
    /// `{TAG :field value ...}`.
    Object(Object),
    /// `(...)`.
    List(Vec<Tree>),
    /// Anything else, as written; `<>` is nothing.
    Atom(String),
}

/// A node with fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Object {
    pub tag: String,
    fields: BTreeMap<String, Vec<Tree>>,
}

impl Object {
    /// A field's only value.
    pub(super) fn field(&self, name: &str) -> Option<&Tree> {
        match self.fields.get(name)?.as_slice() {
            [value] => Some(value),
            _ => None,
        }
    }

    /// All that its fields hold.
    pub(super) fn values(&self) -> impl Iterator<Item = &Tree> {
        self.fields.values().flatten()
    }

    /// A field that is a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.atom(name)?.parse().ok()
    }

    /// A field that is one word.
    pub(super) fn atom(&self, name: &str) -> Option<&str> {
        match self.field(name)? {
            Tree::Atom(text) => Some(text),
            _ => None,
        }
    }

    /// Whether a field is there and says `value`.
    pub(super) fn says(&self, name: &str, value: &str) -> bool {
        self.atom(name) == Some(value)
    }

    /// A field that is a list; nothing is an empty one.
    pub(super) fn list(&self, name: &str) -> Option<&[Tree]> {
        match self.field(name)? {
            Tree::List(items) => Some(items),
            Tree::Atom(text) if text == "<>" => Some(&[]),
            _ => None,
        }
    }
}

impl Tree {
    /// The node, if it is one with fields.
    pub(super) fn object(&self) -> Option<&Object> {
        match self {
            Tree::Object(object) => Some(object),
            _ => None,
        }
    }
}

/// Reads a tree from its text, all of it.
pub(super) fn read(text: &str) -> Option<Tree> {
    let mut rest = text.trim();
    let tree = value(&mut rest, 0)?;
    rest.trim().is_empty().then_some(tree)
}

fn value(rest: &mut &str, depth: usize) -> Option<Tree> {
    if depth > DEPTH_MAX {
        return None;
    }
    *rest = rest.trim_start();
    match rest.chars().next()? {
        '{' => object(rest, depth),
        '(' => {
            *rest = &rest[1..];
            let mut items = Vec::new();
            loop {
                *rest = rest.trim_start();
                if let Some(after) = rest.strip_prefix(')') {
                    *rest = after;
                    return Some(Tree::List(items));
                }
                items.push(value(rest, depth + 1)?);
            }
        }
        ')' | '}' => None,
        _ => Some(Tree::Atom(atom(rest)?)),
    }
}

fn object(rest: &mut &str, depth: usize) -> Option<Tree> {
    *rest = &rest[1..];
    let tag = atom(rest)?;
    let mut fields: BTreeMap<String, Vec<Tree>> = BTreeMap::new();
    let mut field: Option<(String, Vec<Tree>)> = None;
    loop {
        *rest = rest.trim_start();
        let ends = rest.starts_with('}');
        if (ends || rest.starts_with(':'))
            && let Some((name, values)) = field.take()
            && (values.is_empty() || fields.insert(name[1..].to_string(), values).is_some())
        {
            return None;
        }
        if ends {
            *rest = &rest[1..];
            return Some(Tree::Object(Object { tag, fields }));
        }
        if rest.starts_with(':') {
            field = Some((atom(rest)?, Vec::new()));
        } else {
            field.as_mut()?.1.push(value(rest, depth + 1)?);
        }
    }
}

/// A word: up to a blank or a bracket that is not escaped.
fn atom(rest: &mut &str) -> Option<String> {
    let mut escaped = false;
    let end = rest.char_indices().find(|(_, char)| {
        let ends = !escaped && (char.is_ascii_whitespace() || matches!(char, '(' | ')' | '{' | '}'));
        escaped = !escaped && *char == '\\';
        ends
    });
    let (word, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
    *rest = after;
    (!word.is_empty()).then(|| word.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn objects_lists_and_words() {
        let tree =
            read(r#"({A :x 1 :names ("a\ b" "c") :none <> :bytes 4 [ 1 2 ] :deep {B :y (b 8)}})"#).unwrap();
        let Tree::List(items) = &tree else { panic!("{tree:?}") };
        let object = items[0].object().unwrap();
        assert_eq!((object.tag.as_str(), object.number::<u32>("x")), ("A", Some(1)));
        assert_eq!(object.list("names").unwrap().len(), 2);
        assert_eq!(object.list("none"), Some(&[][..]));
        assert_eq!(object.field("bytes"), None, "several words");
        assert_eq!(object.field("deep").unwrap().object().unwrap().tag, "B");
        for broken in ["", "(", "{A :x 1", "{A x}", "(1))", "{}"] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_field_makes_no_object() {
        assert!(read("{A :name x :opfuncid 65}").is_some());
        assert_eq!(read("{A :name :opfuncid :opfuncid 65}"), None);
        assert_eq!(read("{A :name :other}"), None);
        assert_eq!(read("{A :x 1 :x 2}"), None);
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(read(&"(".repeat(100_000)), None);
        assert_eq!(read(&"{A :x ".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[{}(): a\\"<>1]{0,60}"#) {
            let _ = read(&text);
        }
    }
}
