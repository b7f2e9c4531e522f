//! The pages show what their commands really print, and lead to files that exist.

#![cfg(feature = "libtorch")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::{ROOT, assert_shown, blocks, examples, scratch, stdout};

/// The commands that no test runs, and what runs them instead.
const LEFT_OUT: [(&str, &str); 5] = [
    ("scripts/test", "`.ci/run` runs it, and this test is a part of it"),
    ("scripts/bench", "it takes minutes and 5 GiB of disk, and is called by hand"),
    ("scripts/test-versions", "it is `scripts/test`, once for each libtorch"),
    (
        "cd my-mlp && cargo test",
        "it compiles libtorch's wrapper again: tests/ported.rs runs it in one workspace",
    ),
    (
        "cargo install --path .",
        "it writes into the user's folder: `.ci/run` installs into a folder of its own",
    ),
];

/// The page that `tests/pages/tutorial.rs` does as it says.
const TUTORIAL: &str = "docs/porting.md";

/// The languages of blocks. There is none for a command that is not run.
const LANGUAGES: [&str; 9] =
    ["console", "json", "python", "rust", "rust,ignore", "rust,no_run", "text", "toml", "yaml"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// Every page and its text, by its path.
fn pages() -> BTreeMap<String, String> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let docs = docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let others = ["README.md", "CONTRIBUTING.md", "tests/data/README.md"].map(str::to_owned);
    docs.chain(others).map(|path| (path.clone(), read(&path))).collect()
}

/// The commands of a page, with what it shows of their output. What a workflow runs is shown with nothing.
fn commands(page: &str) -> Vec<(&str, &str)> {
    let of_block = |(_, language, text)| match language {
        "console" => examples(text),
        "yaml" => text
            .lines()
            .filter_map(|line| Some((line.trim().strip_prefix("- run: ")?, "…")))
            .collect(),
        _ => Vec::new(),
    };
    blocks(page).into_iter().flat_map(of_block).collect()
}

#[test]
fn every_command_prints_what_its_page_shows() {
    for (path, page) in pages() {
        if path == TUTORIAL {
            continue;
        }
        // As in the repository, but what a command writes does not land there.
        let folder = scratch(&format!("docs_{}", path.replace('/', "_")));
        for name in
            ["Cargo.lock", "Cargo.toml", "build.rs", "docs", "examples", "scripts", "src", "tests"]
        {
            symlink(Path::new(ROOT).join(name), folder.join(name)).unwrap();
        }
        // The reference's Python, wherever it is.
        let python = crate::common::python();
        let words = [python.get_program()].into_iter().chain(python.get_args());
        let words = words.map(|word| format!("'{}' ", word.display())).collect::<String>();
        let wrapper = format!("#!/bin/sh\nexec {words}\"$@\"\n");
        fs::create_dir_all(folder.join(".venv/bin")).unwrap();
        fs::write(folder.join(".venv/bin/python"), wrapper).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.join(".venv/bin/python"), executable).unwrap();
        // Kept from run to run, so that only the first builds what the crate without libtorch needs.
        let target = Path::new(ROOT).join("target");
        fs::create_dir_all(&target).unwrap();
        symlink(target, folder.join("target")).unwrap();
        // A script that the page names before it shows it.
        for (before, _, text) in blocks(&page).into_iter().filter(|block| block.1 == "python") {
            let name = before.split('`').nth(1).filter(|name| name.ends_with(".py"));
            fs::write(folder.join(name.expect(before)), text).unwrap();
        }
        for (command, shown) in commands(&page) {
            if LEFT_OUT.iter().any(|(left_out, _)| *left_out == command) {
                continue;
            }
            let mut shell = Command::new("bash");
            let output = shell.args(["-c", command]).current_dir(&folder).output().unwrap();
            // A command that shows its exit code may fail.
            let printed = String::from_utf8(output.stdout.clone()).unwrap();
            let printed = if command.contains("; echo") { printed } else { stdout(&output) };
            assert_shown(&format!("{path}: {command}"), shown, &printed);
        }
    }
}

#[test]
fn what_is_left_out_above_is_shown_and_run_elsewhere() {
    let pages = pages();
    let shown = pages.values().flat_map(|page| commands(page)).collect::<Vec<_>>();
    for (left_out, why) in LEFT_OUT {
        assert!(shown.iter().any(|(command, _)| *command == left_out), "{left_out}: {why}");
    }
    let ci = read(".ci/run");
    assert!(ci.lines().any(|line| line == "scripts/test"), "{ci}");
    let readme = commands(&pages["README.md"]);
    assert!(readme.iter().any(|(command, _)| *command == "scripts/run"), "{readme:?}");
    // Of what it prints, the README shows tests that there are.
    let (_, printed) = readme.iter().find(|(command, _)| *command == "scripts/test").unwrap();
    let mut lines =
        printed.lines().filter(|line| !line.starts_with(['…', ' ']) && !line.is_empty());
    let mut tests = lines.by_ref().take_while(|line| *line != "test result: ok. …").peekable();
    assert!(tests.peek().is_some(), "{printed}");
    for line in tests {
        let name = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... ok"));
        let (file, name) = name.expect(line).split_once("::").expect(line);
        let function = format!("\nfn {name}() {{\n");
        let folders = fs::read_dir(Path::new(ROOT).join("tests")).unwrap();
        let files = folders.map(|folder| folder.unwrap().path().join(file).with_extension("rs"));
        let mut texts = files.filter_map(|path| fs::read_to_string(path).ok());
        assert!(texts.any(|text| text.contains(&function)), "{line}");
    }
}

#[test]
fn the_benchmarks_are_those_that_were_measured() {
    let page = crate::common::pytorch("scripts/benchmarks/__main__.py", &["target", "--page"]);
    assert_eq!(page, read("docs/benchmarks.md"));
}

#[test]
fn every_link_leads_to_a_file() {
    let mut seen = 0;
    for (path, page) in pages() {
        let folder = Path::new(ROOT).join(&path).parent().unwrap().to_owned();
        // Outside of blocks, where brackets are code.
        let prose = page.split("```").step_by(2).collect::<String>();
        for link in prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { Path::new(ROOT).join(&path) } else { folder.join(file) };
            assert!(target.exists(), "{path}: {link}");
            // GitHub's name of a heading.
            let heading = |line: &str| {
                let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                words.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect::<String>()
            };
            let found = section.is_empty()
                || fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && heading(line) == section);
            assert!(found, "{path}: {link}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let pages = pages();
    let readme = &pages["README.md"];
    assert!(readme.lines().count() <= 150, "{}", readme.lines().count());
    for page in
        pages.keys().filter(|page| !["README.md", "tests/data/README.md"].contains(&&***page))
    {
        assert!(readme.contains(&format!("]({page}")), "{page}");
    }
}

#[test]
fn every_block_is_run_or_compiled() {
    let compiled = read("src/lib.rs");
    for (path, page) in pages() {
        for (_, language, text) in blocks(&page) {
            assert!(LANGUAGES.contains(&language), "{path}: {language:?}\n{text}");
            // A file of the tutorial is compiled by its test, and by no doctest.
            assert!(language != "rust,ignore" || path == TUTORIAL, "{path}\n{text}");
            let included = compiled.contains(&format!("include_str!(\"../{path}\")"));
            assert!(!language.starts_with("rust") || included, "{path} is not in src/lib.rs");
        }
    }
}

/// The controls of the rule by which output is compared.
#[test]
fn what_a_page_shows_wrongly_is_seen() {
    let fits = |shown: &str, printed: &str| {
        std::panic::catch_unwind(|| assert_shown("command", shown, printed)).is_ok()
    };
    assert!(fits("a\nb\n", "a\nb\n") && fits("", "") && fits("a …\nb", "a 17\nb"));
    assert!(fits("a\n…\nd", "a\nb\nc\nd") && fits("…\nb\n…", "a\nb\nc") && fits("…", ""));
    assert!(!fits("a\n", "a\nb\n") && !fits("a\nb\n", "a\n") && !fits("", "a"));
    assert!(
        !fits("a  b", "a b") && !fits("a", "ab") && !fits("…\na", "a\nb") && !fits("…\nc", "a")
    );
}
