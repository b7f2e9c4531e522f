//! What only one side of a comparison has: which side lacks it, the option that leaves it out, and the hint at a
//! prefix.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{scratch, tch_parity};
use safetensors::tensor::{Dtype, TensorView};
use tch_parity::Trace;

fn save(path: &Path, names: &[&str]) {
    let mut trace = Trace::new();
    for name in names {
        trace.push_view(*name, &TensorView::new(Dtype::U8, vec![1], &[1]).unwrap()).unwrap();
    }
    trace.save(path).unwrap();
}

fn files(name: &str, actual: &[&str], expected: &[&str]) -> [PathBuf; 2] {
    let folder = scratch(name);
    let paths = ["actual.safetensors", "expected.safetensors"].map(|name| folder.join(name));
    save(&paths[0], actual);
    save(&paths[1], expected);
    paths
}

fn run(files: &[PathBuf; 2], args: &[&str]) -> (Option<i32>, String) {
    let mut command = tch_parity();
    command.arg("compare").args(files).args(args).env_remove("GITHUB_ACTIONS");
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn partial_leaves_out_what_either_side_lacks() {
    let files = files("one_sided_partial", &["a", "ours"], &["a", "theirs"]);
    let (code, report) = run(&files, &[]);
    assert_eq!(code, Some(1));
    for line in [
        "theirs: it is missing: only the expected side has it",
        "ours: it is not expected: only the actual side has it",
    ] {
        assert!(report.contains(line), "{report}");
    }
    for (option, code, not_compared) in [
        ("--partial", 1, "not compared: theirs\n"),
        ("--partial=actual", 1, "not compared: theirs\n"),
        ("--partial=expected", 1, "not compared: ours\n"),
        ("--partial=both", 0, "not compared: theirs ours\n"),
    ] {
        let (found, report) = run(&files, &[option]);
        assert_eq!(found, Some(code), "{option}\n{report}");
        assert!(report.contains(not_compared), "{option}\n{report}");
    }
}

#[test]
fn a_prefix_is_hinted_at_and_the_renaming_that_the_hint_proposes_works() {
    let plain = ["fc1.weight", "layers.0.norm.weight", "layers.1.norm.weight"];
    let recorded = ["param/fc1.weight", "forward/fc1", "grad/fc1.weight", "forward/L"];
    for (at, prefix) in ["model", "module", "_orig_mod", "module._orig_mod"].iter().enumerate() {
        for (names, kind) in [(&plain[..], "plain"), (&recorded[..], "recorded")] {
            let prefixed = names.iter().map(|name| match name.rsplit_once('/') {
                Some((_, "L")) => (*name).to_owned(),
                Some((section, name)) => format!("{section}/{prefix}.{name}"),
                None => format!("{prefix}.{name}"),
            });
            let prefixed = prefixed.collect::<Vec<_>>();
            let prefixed = prefixed.iter().map(String::as_str).collect::<Vec<_>>();
            for (actual, expected) in [(&prefixed[..], names), (names, &prefixed[..])] {
                let files = files(&format!("one_sided_prefix_{kind}_{at}"), actual, expected);
                let (code, report) = run(&files, &[]);
                assert_eq!(code, Some(1), "a hint is never applied");
                let hint = report.lines().find(|line| line.starts_with("hint: "));
                let hint = hint.unwrap_or_else(|| panic!("no hint\n{report}"));
                assert!(hint.contains(&format!("without the prefix \"{prefix}.\"")), "{hint}");
                let proposed = hint.split('\'').skip(1).step_by(2);
                let args = proposed.flat_map(|rule| ["--rename", rule]).collect::<Vec<_>>();
                let (code, report) = run(&files, &args);
                assert_eq!(code, Some(0), "{hint}\n{report}");
            }
        }
    }
}

/// A wrapper around a part of a model gives a prefix to the names of that part alone.
#[test]
fn a_prefix_of_some_names_is_hinted_at_as_well() {
    let plain = ["a.0.bias", "a.0.weight", "a.1.bias", "a.1.weight", "b.bias", "b.weight"];
    let prefixed = |of: &dyn Fn(&str) -> bool| {
        plain.map(|name| if of(name) { format!("module.{name}") } else { name.to_owned() })
    };
    let halves = [
        prefixed(&|name| name.starts_with("a.0")),
        prefixed(&|name| name.starts_with("a.")),
        prefixed(&|name| name.ends_with("bias")),
    ];
    for (at, half) in halves.iter().enumerate() {
        let half = half.each_ref().map(String::as_str);
        for (actual, expected) in [(&half, &plain), (&plain, &half)] {
            let files = files(&format!("one_sided_prefix_of_some_{at}"), actual, expected);
            let (_, report) = run(&files, &[]);
            let hint = report.lines().find(|line| line.starts_with("hint: ")).unwrap();
            let proposed = hint.split('\'').skip(1).step_by(2);
            let args = proposed.flat_map(|rule| ["--rename", rule]).collect::<Vec<_>>();
            let (code, report) = run(&files, &args);
            assert_eq!(code, Some(0), "{hint}\n{report}");
        }
    }
    // Also where more names have no partner at all.
    let files = files(
        "one_sided_prefix_of_few",
        &["m.a", "m.b", "x", "y", "z"],
        &["a", "b", "c", "d", "e"],
    );
    assert!(run(&files, &[]).1.contains("without the prefix \"m.\", 2 names"));
}

#[test]
fn names_that_have_nothing_in_common_give_no_hint() {
    let files = files("one_sided_no_hint", &["x.a", "y.b", "z.c"], &["a", "d", "e", "f"]);
    assert!(!run(&files, &[]).1.contains("hint: "));
}

#[test]
fn what_is_accepted_or_not_compared_is_skipped_in_junit_with_its_reason() {
    let files = files("one_sided_junit", &["a", "ours"], &["a", "theirs"]);
    let junit = files[0].with_file_name("report.xml");
    let args = ["--partial", "--ignore", "ours=the port has one more", "--junit"];
    let (code, _) = run(&files, &[&args[..], &[junit.to_str().unwrap()]].concat());
    assert_eq!(code, Some(0));
    let xml = fs::read_to_string(junit).unwrap();
    assert_eq!(xml.matches("<skipped ").count(), 2, "{xml}");
    assert!(xml.contains("message=\"accepted: the port has one more\""), "{xml}");
    assert!(xml.contains("message=\"not compared: the actual side does not have it\""), "{xml}");
}

#[test]
fn what_was_given_proves_nothing_if_nothing_computed_was_compared() {
    let given = ["input/x", "param/fc.weight", "step/2/input/x", "rng"];
    let computed = ["input/x", "param/fc.weight", "step/2/input/x", "rng", "forward/fc", "grad/fc"];
    let why = "nothing that was computed was compared";
    for (at, (actual, expected, args)) in [
        (&given[..], &computed[..], &["--partial"][..]),
        (&computed, &given, &["--partial=expected"]),
        (&given, &computed, &["--ignore", "*=all"]),
    ]
    .into_iter()
    .enumerate()
    {
        let files = files(&format!("one_sided_given_{at}"), actual, expected);
        let junit = files[0].with_file_name("junit.xml");
        let args = [args, &["--junit", junit.to_str().unwrap()]].concat();
        let (code, report) = run(&files, &args);
        assert_eq!(code, Some(1), "{report}");
        assert!(report.contains(why) && report.contains("DIFFERS: "), "{report}");
        assert!(fs::read_to_string(junit).unwrap().contains(why));
    }
    let both = files("one_sided_given_ignored", &computed, &computed);
    let (code, report) = run(&both, &["--ignore", "*=all"]);
    assert_eq!(code, Some(0), "what agrees needs no rule: {report}");
    let alone = files("one_sided_given_alone", &given, &given);
    assert_eq!(run(&alone, &[]).0, Some(0), "two files in which nothing is computed");
}

#[test]
fn a_prefix_is_hinted_at_where_nothing_is_left_to_compare() {
    let files = files("one_sided_prefix_nothing", &["module.a", "module.b"], &["a", "b"]);
    let mut command = tch_parity();
    let output = command.arg("compare").args(&files).arg("--partial=both").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("nothing to compare; without the prefix \"module.\""), "{error}");
}
