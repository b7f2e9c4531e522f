//! What the crate is without its feature `libtorch`: `compare` and `show` on stored files, with nothing of C++.
//! The first two tests hold for both builds.

mod common;

use std::fs;
use std::process::Output;

use common::{data, stdout, tch_parity};

fn compared(a: &str, b: &str) -> Output {
    tch_parity().arg("compare").args([data(a), data(b)]).output().unwrap()
}

#[test]
fn a_stored_file_is_printed_as_pytorch_printed_it() {
    let output =
        tch_parity().arg("show").arg(data("tensor_str/tensors.safetensors")).output().unwrap();
    let expected = fs::read_to_string(data("tensor_str/show.txt")).unwrap();
    assert_eq!(stdout(&output), expected);
}

#[test]
fn stored_cases_are_compared() {
    let same = stdout(&compared("cases/nesterov.safetensors", "cases/nesterov.safetensors"));
    assert_eq!(same.lines().count(), 1, "{same}");

    let differ = compared("cases/nesterov.safetensors", "cases/dampening.safetensors");
    assert_eq!(differ.status.code(), Some(1), "{differ:?}");
    assert!(!differ.stdout.is_empty() && differ.stderr.is_empty(), "{differ:?}");
}

#[cfg(not(feature = "libtorch"))]
mod without {
    use std::collections::HashSet;
    use std::env;
    use std::process::Command;

    use super::common::{ROOT, stdout, tch_parity};

    #[test]
    fn the_version_says_that_there_is_no_libtorch() {
        let expected = format!("tch-parity {} (without libtorch)\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(stdout(&tch_parity().arg("--version").output().unwrap()), expected);
    }

    #[test]
    fn what_computes_is_no_subcommand() {
        let help = stdout(&tch_parity().arg("--help").output().unwrap());
        for command in ["notebook", "check", "worksheet", "figure", "selftest"] {
            assert!(!help.contains(command), "{help}");
            let output = tch_parity().arg(command).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains(&format!("unrecognized subcommand '{command}'")), "{stderr}");
        }
    }

    #[test]
    fn no_dependency_is_of_libtorch_or_compiles_cpp() {
        let mut tree = Command::new(env::var_os("CARGO").unwrap());
        tree.args(["tree", "--locked", "--no-default-features", "--edges", "normal,build"]);
        tree.args(["--prefix", "none", "--format", "{p}"]).current_dir(ROOT);
        let tree = stdout(&tree.output().unwrap());
        let names = tree.lines().filter_map(|line| line.split(' ').next()).collect::<HashSet<_>>();
        assert!(names.contains("safetensors"), "{names:?}");
        for name in ["tch", "torch-sys", "cc"] {
            assert!(!names.contains(name), "{names:?}");
        }
    }
}
