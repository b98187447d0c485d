//! The documents in `docs/`: those that are written from the sources are what the sources say, and what any
//! of them points at is there. `make docs` writes them anew.

mod database;
mod errors;
mod states;
mod timeline;
mod topics;

use std::{fs, path::PathBuf};

use framehook_tests::root;

/// Set by `make docs`.
const UPDATE: &str = "FRAMEHOOK_UPDATE_DOCS";

#[test]
fn the_written_documents_say_what_the_sources_say() {
    let documents = [
        ("docs/topics.md", topics::document()),
        ("docs/database.md", database::document()),
        ("docs/states.md", states::document()),
        ("docs/errors.md", errors::document()),
        ("docs/data-flow.md", timeline::document()),
    ];
    for (path, text) in documents {
        let file = root().join(path);
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&file, &text).unwrap();
        }
        let there = fs::read_to_string(&file).unwrap_or_default();
        let differs = text.lines().zip(there.lines()).find(|(new, old)| new != old);
        assert!(there == text, "{path} is not what its sources say, run `make docs`; first difference: {differs:?}");
    }
}

#[test]
fn what_the_documents_point_at_is_there() {
    let mut seen = (0, 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        for target in between(&text, "](", ")").filter(|t| !t.contains("://") && !t.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            assert!(folder.join(file).exists(), "{} points at {target}", document.display());
            seen.0 += 1;
        }
        // A test is named as `file.rs::name`.
        for (file, name) in between(&text, "`", "`").filter_map(|code| code.split_once(".rs::")) {
            let source = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
            assert!(source.contains(&format!("fn {name}(")), "{} names {file}.rs::{name}", document.display());
            seen.1 += 1;
        }
    }
    assert!(seen.0 > 10 && seen.1 > 10, "links and tests found: {seen:?}");
}

/// The documents of the whole project that a person is led to.
fn documents() -> Vec<PathBuf> {
    let guides = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let top = ["README.md", "ARCHITECTURE.md", "deploy/README.md"].map(|name| root().join(name));
    guides.chain(top).filter(|path| path.extension().is_some_and(|e| e == "md")).collect()
}

/// What stands between `open` and the next `close`, each on one line.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().flat_map(move |line| {
        let mut rest = line;
        std::iter::from_fn(move || {
            let (found, after) = rest.split_once(open)?.1.split_once(close)?;
            rest = after;
            Some(found)
        })
    })
}

/// First lines of a written document.
fn head(title: &str, sources: &str) -> String {
    format!("<!-- Written by `make docs` from {sources}; a change here is lost. -->\n\n# {title}\n\n")
}

/// A row of a table; a cell's text must not end it.
fn row(cells: &[&str]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a table.
fn header(cells: &[&str]) -> String {
    row(cells) + "|" + &"---|".repeat(cells.len()) + "\n"
}

/// Every line of code with the comment that stands right above it, or an empty one.
fn commented<'a>(source: &'a str, mark: &'a str) -> impl Iterator<Item = (&'a str, String)> {
    let mut comment: Vec<&str> = vec![];
    source.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(text) = line.strip_prefix(mark) {
            comment.push(text.trim());
            return None;
        }
        // What belongs to the next line keeps its comment; a blank line ends one.
        if line.starts_with("#[") {
            return None;
        }
        let comment = std::mem::take(&mut comment).join(" ");
        (!line.is_empty()).then_some((line, comment))
    })
}

/// Name and comment of each variant of an enum: the lines from `start` to the brace that closes it, in the
/// first column.
fn variants(source: &str, start: &str) -> Vec<(String, String)> {
    let body = source.split_once(start).unwrap_or_else(|| panic!("`{start}` is not there")).1;
    let body = body.split_once("\n}").expect("an enum ends").0;
    let named = commented(body, "///").map(|(line, comment)| {
        let name = line.split(&[',', ' ', '=', '{'][..]).next().unwrap_or_default();
        (name.to_owned(), comment)
    });
    named.filter(|(name, _)| !name.is_empty()).collect()
}

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
}
