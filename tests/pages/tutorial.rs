//! The page on porting, done as it says.

#![cfg(feature = "libtorch")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::common::{ROOT, assert_shown, blocks, examples, libtorch, scratch, share_build};

/// Returns the version of tch that this crate is built with.
fn tch_version() -> String {
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let after = lock.split("name = \"tch\"\nversion = \"").nth(1).unwrap();
    after.split('"').next().unwrap().to_owned()
}

/// The file that a line above a block names, as `` **`file`** `` or `` **`file`, continued** ``, and whether the
/// block goes on with it.
fn listing(line: &str) -> Option<(&str, bool)> {
    let (name, rest) = line.strip_prefix("**`")?.split_once('`')?;
    match rest {
        "**" => Some((name, false)),
        ", continued**" => Some((name, true)),
        _ => None,
    }
}

#[test]
fn every_listing_and_command_does_what_the_page_says() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/porting.md")).unwrap();
    let folder = scratch("tutorial");
    share_build(&folder);
    let mlp = folder.join("mlp");
    fs::create_dir(&mlp).unwrap();
    std::os::unix::fs::symlink(ROOT, folder.join("tch-parity")).unwrap();
    // The lock file pins the versions that are downloaded already.
    fs::copy(Path::new(ROOT).join("Cargo.lock"), mlp.join("Cargo.lock")).unwrap();

    let (mut listings, mut commands) = (0, 0);
    for (line, language, block) in blocks(&page) {
        if let Some((name, continued)) = listing(line) {
            let path = mlp.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            assert_eq!(path.exists(), continued, "{name}");
            let text = block.replace("tch = \"0.26\"", &format!("tch = \"={}\"", tch_version()));
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            listings += 1;
        } else if language == "console" {
            for (command, shown) in examples(block) {
                if command.starts_with("cd port ") {
                    fs::copy(mlp.join("Cargo.lock"), mlp.join("port/Cargo.lock")).unwrap();
                }
                let mut shell = Command::new("bash");
                shell.args(["-c", &format!("{command} 2>&1")]).current_dir(&mlp);
                shell.env_remove("RUST_BACKTRACE").env("LIBTORCH", libtorch());
                let output = shell.output().unwrap();
                assert_shown(command, shown, &String::from_utf8(output.stdout).unwrap());
                commands += 1;
            }
        }
    }
    assert_eq!((listings, commands), (16, 23));
}
