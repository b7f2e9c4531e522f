//! The tutorial's steps work as it says.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{ROOT, scratch};

/// Returns the version of tch that this crate is built with.
fn tch_version() -> String {
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let after = lock.split("name = \"tch\"\nversion = \"").nth(1).unwrap();
    after.split('"').next().unwrap().to_owned()
}

#[test]
fn every_listing_and_command_does_what_the_page_says() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/tutorial.md")).unwrap();
    let folder = scratch("tutorial");
    let mlp = folder.join("mlp");
    fs::create_dir(&mlp).unwrap();
    std::os::unix::fs::symlink(ROOT, folder.join("tch-parity")).unwrap();
    // The lock file pins the versions that are downloaded already.
    fs::copy(Path::new(ROOT).join("Cargo.lock"), mlp.join("Cargo.lock")).unwrap();

    let (mut listings, mut commands) = (0, 0);
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once("\n```") {
        let (language, after) = after.split_once('\n').unwrap();
        let (block, after) = after.split_once("```\n").unwrap();
        rest = after;
        let name = before.trim_end().rsplit('\n').next().unwrap().strip_prefix("**`");
        if let Some(name) = name.and_then(|name| name.strip_suffix("`**")) {
            let file = mlp.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let text = block.replace("tch = \"0.26\"", &format!("tch = \"={}\"", tch_version()));
            fs::write(file, text).unwrap();
            listings += 1;
        } else if language == "console" {
            for example in format!("\n{block}").split("\n$ ").skip(1) {
                let (command, shown) = example.split_once('\n').unwrap_or((example, ""));
                let mut shell = Command::new("bash");
                shell.args(["-c", &format!("{command} 2>&1")]).current_dir(&mlp);
                if command.starts_with("cargo ") {
                    // This folder is kept from run to run, so that only the first run builds libtorch's wrapper.
                    shell.env("CARGO_TARGET_DIR", Path::new(ROOT).join("target/tutorial"));
                }
                shell.env_remove("LIBTORCH").env_remove("RUST_BACKTRACE");
                let output = shell.output().unwrap();
                let printed = String::from_utf8(output.stdout).unwrap();
                assert_shown(command, shown, &printed);
                commands += 1;
            }
        }
    }
    assert_eq!((listings, commands), (6, 12));
}

/// Asserts that every line shown is the beginning of a line printed, in the same order. A line `…` stands for any
/// number of lines.
fn assert_shown(command: &str, shown: &str, printed: &str) {
    let mut printed_lines = printed.lines();
    let mut any = false;
    for line in shown.trim_end().lines() {
        if line == "…" {
            any = true;
            continue;
        }
        // The width of a column depends on its contents, so spaces are not compared.
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let fits = |printed: &str| match line {
            "" => printed.is_empty(),
            _ => words(printed).starts_with(&words(line)),
        };
        let found =
            if any { printed_lines.any(fits) } else { printed_lines.next().is_some_and(fits) };
        assert!(found, "$ {command}\nshows no {line:?}\n{printed}");
        any = false;
    }
}
