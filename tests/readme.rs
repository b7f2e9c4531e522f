//! The README shows what its commands really print.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{ROOT, scratch, stdout};

/// The command that is left to CI, since a test that ran it would run itself.
const LEFT_TO_CI: &str = "scripts/test";

#[test]
fn every_command_prints_what_the_readme_shows() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    // The folder looks like the repository, but what a command writes does not end up there.
    let folder = scratch("readme");
    for name in ["docs", "scripts", "tests"] {
        std::os::unix::fs::symlink(Path::new(ROOT).join(name), folder.join(name)).unwrap();
    }
    let mut run = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in format!("\n{block}").split("\n$ ").skip(1) {
            let (command, shown) = example.split_once('\n').unwrap_or((example, ""));
            run.push(command.to_owned());
            if command == LEFT_TO_CI {
                continue;
            }
            let output =
                Command::new("bash").args(["-c", command]).current_dir(&folder).output().unwrap();
            // A command that prints its exit code may fail.
            let printed = String::from_utf8(output.stdout.clone()).unwrap();
            let printed = if command.contains("; echo") { printed } else { stdout(&output) };
            assert_eq!(printed.trim_end(), shown.trim_end(), "{command}");
        }
    }
    assert!(run.iter().any(|command| command == "scripts/run"), "{run:?}");
    let ci = fs::read_to_string(Path::new(ROOT).join(".ci/run")).unwrap();
    assert!(
        ci.lines().any(|line| line == LEFT_TO_CI)
            && run.iter().any(|command| command == LEFT_TO_CI)
    );
}
