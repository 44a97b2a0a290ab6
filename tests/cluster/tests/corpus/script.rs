//! A script of the corpus: what it prepares, what it runs, and how its answers compare.
//!
//! A file is comments, statements that prepare, a line `-- run`, and the statements that are run and whose answers count;
//! without that line all of them are. A statement ends with a line that ends with a semicolon; what stands on one line is
//! one query. Data of COPY ... FROM STDIN follow it up to a line `\.`. `-- compare: shape` lets values differ.

use std::path::Path;

/// How answers compare with those of a plain server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// They are equal.
    Exact,
    /// Columns, numbers of rows and errors are.
    Shape,
    /// Every statement is refused here: 0A000, with a hint.
    Refused,
}

/// A step of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A simple query.
    Query(String),
    /// COPY ... FROM STDIN, and its data.
    CopyIn(String, String),
    /// COPY ... TO STDOUT.
    CopyOut(String),
}

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// class/name.
    pub name: String,
    pub compare: Compare,
    /// One query.
    pub setup: String,
    pub steps: Vec<Step>,
    /// Its steps define things: it has no setup of its own.
    pub defines: bool,
}

impl Script {
    /// Its schema.
    pub fn schema(&self) -> String {
        format!("corpus_{}", self.name.replace('/', "_"))
    }

    pub fn parse(name: &str, text: &str) -> Script {
        let class = name.split('/').next().unwrap_or_default();
        let compare = match text.lines().any(|line| line.starts_with("-- compare: shape")) {
            _ if class == "refused" => Compare::Refused,
            true => Compare::Shape,
            false => Compare::Exact,
        };
        let (setup, body) = match text.split_once("-- run\n") {
            Some((setup, body)) => (setup.to_string(), body),
            None => (String::new(), text),
        };
        let defines = !text.contains("-- run\n");
        Script { name: name.into(), compare, setup, steps: steps(body), defines }
    }
}

/// All scripts of a directory, by class and name.
pub fn read_all(dir: &Path) -> Vec<Script> {
    let list = |dir: &Path| {
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_string();
    let mut scripts = Vec::new();
    for class in list(dir) {
        for file in list(&class) {
            let name = format!("{}/{}", stem(&class), stem(&file));
            scripts.push(Script::parse(&name, &std::fs::read_to_string(&file).unwrap()));
        }
    }
    scripts
}

fn steps(body: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = body.lines();
    let mut query = String::new();
    while let Some(line) = lines.next() {
        if query.is_empty() && (line.trim().is_empty() || line.starts_with("--")) {
            continue;
        }
        query.push_str(line);
        query.push('\n');
        if !line.trim_end().ends_with(';') || inside_quotes(&query) {
            continue;
        }
        let sql = std::mem::take(&mut query).trim_end().trim_end_matches(';').to_string();
        let words = sql.to_ascii_uppercase();
        steps.push(match words.starts_with("COPY ") {
            true if words.contains("FROM STDIN") => {
                let data: String = lines
                    .by_ref()
                    .take_while(|line| *line != "\\.")
                    .map(|line| format!("{line}\n"))
                    .collect();
                Step::CopyIn(sql, data)
            }
            true if words.contains("TO STDOUT") => Step::CopyOut(sql),
            _ => Step::Query(sql),
        });
    }
    assert!(query.is_empty(), "a statement without an end: {query}");
    steps
}

/// Whether the text ends inside a string, a quoted identifier or a dollar-quoted body.
fn inside_quotes(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '"', '$']) {
        let quote = match &rest[at..at + 1] {
            "$" => match rest[at + 1..].find('$') {
                Some(end) if rest[at + 1..at + 1 + end].chars().all(|c| c.is_alphanumeric() || c == '_') => {
                    let tag = &rest[at..at + end + 2];
                    // $1 is a parameter.
                    if tag.as_bytes()[1].is_ascii_digit() { None } else { Some(tag) }
                }
                _ => None,
            },
            quote => Some(quote),
        };
        let Some(quote) = quote else {
            rest = &rest[at + 1..];
            continue;
        };
        let body = &rest[at + quote.len()..];
        let Some(end) = body.find(quote) else { return true };
        rest = &body[end + quote.len()..];
    }
    false
}

#[test]
fn a_script_is_cut_into_its_steps() {
    let text = "-- about\nCREATE TABLE t (a int);\n-- run\nDO $$BEGIN\n    PERFORM 1;\nEND$$;\nSELECT 'a;\nb' || $1;\nCOPY t FROM STDIN;\n1\n\\.\nBEGIN; COMMIT;\n";
    let script = Script::parse("class/name", text);
    assert_eq!(script.schema(), "corpus_class_name");
    assert_eq!(script.setup, "-- about\nCREATE TABLE t (a int);\n");
    assert_eq!(
        script.steps,
        [
            Step::Query("DO $$BEGIN\n    PERFORM 1;\nEND$$".into()),
            Step::Query("SELECT 'a;\nb' || $1".into()),
            Step::CopyIn("COPY t FROM STDIN".into(), "1\n".into()),
            Step::Query("BEGIN; COMMIT".into()),
        ]
    );
}
