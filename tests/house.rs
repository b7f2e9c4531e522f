//! The source is laid out as `docs/source.md` says, and documented in whole sentences.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::ROOT;

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn map() -> String {
    read(Path::new(ROOT).join("docs/source.md"))
}

/// Reads every file of `src/`, and returns their texts by their paths below `src/`.
fn sources() -> BTreeMap<PathBuf, String> {
    fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else {
                let name = path.strip_prefix(Path::new(ROOT).join("src")).unwrap().to_owned();
                files.insert(name, read(&path));
            }
        }
    }
    let mut files = BTreeMap::new();
    collect(&Path::new(ROOT).join("src"), &mut files);
    files
}

/// Reads the rooms from the docs, and what each of them may import.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let map = map();
    let table = map.split("| room | may import |\n|---|---|\n").nth(1).unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let names =
        |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let row = |line: &str| {
        let cells = line.split('|').collect::<Vec<_>>();
        (names(cells[1]).into_iter().next().unwrap(), names(cells[2]))
    };
    rows.map(row).collect()
}

/// Lists what a file imports of the crate, or names by a path: rooms, and what `lib.rs` exports.
fn imported(file: &Path, text: &str) -> BTreeSet<String> {
    let mut module = file
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    module.retain(|part| !["mod", "lib", "main"].contains(&part.as_str()));
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    let word = |text: &str| {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut add = |rest: &str| {
        // One name, or a list of paths in braces, each of which begins with one.
        let mut depth = 0;
        let list = rest.chars().take_while(|c| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth > 0
        });
        let list = list.collect::<String>();
        let mut depth = 0;
        let apart = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 1 && (c == ',' || c == '{')
        };
        let paths = match list.is_empty() {
            true => vec![rest],
            false => list.split(apart).map(str::trim).filter(|path| !path.is_empty()).collect(),
        };
        found.extend(paths.into_iter().map(word).filter(|name| !name.is_empty()));
    };
    for rest in code.split("crate::").skip(1) {
        add(rest);
    }
    // This many `super` lead out of every room.
    let up = "super::".repeat(module.len());
    for (at, _) in code.match_indices(&up) {
        if !up.is_empty() && !code[..at].ends_with("::") {
            add(&code[at + up.len()..]);
        }
    }
    found
}

#[test]
fn imports_go_the_way_that_the_docs_allow() {
    let allowed = allowed();
    let rooms = allowed.keys().cloned().collect::<BTreeSet<_>>();
    let folders = fs::read_dir(Path::new(ROOT).join("src")).unwrap().map(Result::unwrap);
    let folders = folders.filter(|entry| entry.path().is_dir());
    let folders = folders.map(|entry| entry.file_name().into_string().unwrap());
    assert_eq!(folders.collect::<BTreeSet<_>>(), rooms, "a room a folder");
    let mut seen = 0;
    for (file, text) in &sources() {
        let room = file.iter().next().unwrap().to_str().unwrap();
        let Some(may_import) = allowed.get(room) else { continue };
        for other in imported(file, text) {
            seen += 1;
            // A name that is no room is one that lib.rs exports, whichever room it comes from.
            assert!(rooms.contains(&other), "{}: name the room of {other}", file.display());
            let fine = other == room || may_import.contains(&other);
            assert!(fine, "{}: {room} must not import {other}", file.display());
        }
    }
    assert!(seen > 40, "{seen}");
    // Imports go one way: there is always a room that imports none of those that are left.
    let mut left = rooms;
    while !left.is_empty() {
        let free = left.iter().filter(|room| allowed[*room].is_disjoint(&left)).cloned();
        let free = free.collect::<BTreeSet<_>>();
        assert!(!free.is_empty(), "a circle: {left:?}");
        left = left.difference(&free).cloned().collect();
    }
}

/// Checks, as a control, that the test above detects a forbidden import.
#[test]
fn a_forbidden_arrow_is_seen() {
    let of =
        |file: &str, text: &str| imported(Path::new(file), text).into_iter().collect::<Vec<_>>();
    assert_eq!(of("trace/names.rs", "use crate::compare::compare;"), ["compare"]);
    assert_eq!(of("trace/names.rs", "use crate::{case::Case, report};"), ["case", "report"]);
    let nested = "use crate::{trace::{Trace as T, Names as N}, case::Case as C};";
    assert_eq!(of("trace/names.rs", nested), ["case", "trace"]);
    assert_eq!(of("trace/names.rs", "use crate::assert_parity as z;"), ["assert_parity"]);
    assert_eq!(of("trace/mod.rs", "let x = super::torch::repr();"), ["torch"]);
    assert_eq!(of("trace/names.rs", "use super::super::cli;\nuse super::bytes;"), ["cli"]);
    assert_eq!(of("trace/names.rs", "/// [`crate::compare`]\nuse super::compare;"), [""; 0]);
}

#[test]
fn rooms_without_libtorch_do_not_name_it() {
    for (file, text) in &sources() {
        let room = file.iter().next().unwrap().to_str().unwrap();
        if ["trace", "repr", "compare", "report"].contains(&room) {
            assert!(!text.contains("tch::") && !text.contains("torch_sys"), "{}", file.display());
        }
        if !["lib.rs", "cli/mod.rs"].contains(&file.to_str().unwrap()) {
            assert!(!text.contains("feature ="), "{}", file.display());
        }
    }
}

#[test]
fn every_file_of_the_source_is_on_the_map() {
    let map = map();
    let files = sources();
    for file in files.keys().filter(|file| file.iter().count() > 1) {
        let room = file.iter().next().unwrap();
        let section = map.split(&format!("\n`{}/`\n", room.display())).nth(1).unwrap();
        let section = section.split("\n`").next().unwrap();
        let name = file.strip_prefix(room).unwrap().display();
        let is_doc = name.to_string() == "mod.rs";
        assert!(is_doc || section.contains(&format!("`{name}`")), "{}", file.display());
    }
    assert!(files.len() > 70);
}

#[test]
fn files_are_short_and_the_notebook_is_thin() {
    let files = sources();
    let mut lengths = files.iter().filter(|(file, _)| file.extension().unwrap() == "rs");
    let mut lengths = lengths.by_ref().map(|(_, text)| text.lines().count()).collect::<Vec<_>>();
    lengths.sort();
    assert!(lengths[lengths.len() / 2] < 130, "{lengths:?}");
    let notebook = files.iter().filter(|(file, _)| {
        file.starts_with("notebook") && !file.starts_with("notebook/worksheet")
    });
    let lines = notebook.map(|(_, text)| text.lines().count()).sum::<usize>();
    assert!(lines < 600, "{lines}");
}

/// Lists the public items of a file, each with the first paragraph of its documentation.
fn documented(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut doc = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("///") {
            doc.push(rest.trim().to_owned());
        } else if !line.starts_with("#[") && !line.is_empty() {
            if line.starts_with("pub ")
                && !line.starts_with("pub use")
                && !line.starts_with("pub mod")
            {
                let first = doc.iter().take_while(|line| !line.is_empty()).cloned();
                found.push((first.collect::<Vec<_>>().join(" "), line.to_owned()));
            }
            doc.clear();
        }
    }
    found
}

#[test]
fn public_items_are_documented_in_sentences() {
    let mut functions = 0;
    let mut wrong = Vec::new();
    for (file, text) in &sources() {
        for (doc, item) in documented(text) {
            let sentence = doc.ends_with(['.', ':']) && doc.starts_with(char::is_uppercase);
            // The documentation of a function begins with a verb in the third person.
            let is_function = item.contains("fn ");
            let verb = doc.split(' ').next().unwrap().ends_with('s');
            if !sentence || doc.split(' ').count() < 3 || is_function && !verb {
                wrong.push(format!("{}: {item}: {doc:?}", file.display()));
            }
            functions += usize::from(is_function);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(functions > 60, "{functions}");
}
