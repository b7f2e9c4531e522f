//! The differences that a reader accepts: each needs a reason, and what nothing needs is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{scratch, stdout, tch_parity};
use safetensors::tensor::{Dtype, TensorView};
use tch_parity::{Accepted, Comparison, Criterion, Trace, compare};

fn trace(tensors: &[(&str, f32)]) -> Trace {
    let mut trace = Trace::new();
    for (name, value) in tensors {
        let bytes = value.to_le_bytes();
        trace.push_view(*name, &TensorView::new(Dtype::F32, vec![1], &bytes).unwrap()).unwrap();
    }
    trace
}

fn files(name: &str, actual: &[(&str, f32)], expected: &[(&str, f32)]) -> (PathBuf, [PathBuf; 2]) {
    let folder = scratch(name);
    let paths = ["actual.safetensors", "expected.safetensors"].map(|name| folder.join(name));
    trace(actual).save(&paths[0]).unwrap();
    trace(expected).save(&paths[1]).unwrap();
    (folder, paths)
}

fn run(files: &[PathBuf; 2], args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tch_parity();
    command.arg("compare").args(files).args(args).env_remove("GITHUB_ACTIONS");
    let output = command.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), out, err)
}

#[test]
fn the_tolerance_that_the_report_names_is_accepted() {
    for criterion in ["bitwise", "close"] {
        let (_, files) = files(
            &format!("accepted_named_{criterion}"),
            &[("grad/attn[0]", 1.5), ("grad/attn", 1.)],
            &[("grad/attn[0]", 1.), ("grad/attn", 1.)],
        );
        let (code, report, _) = run(&files, &["--criterion", criterion]);
        assert_eq!(code, Some(1));
        let named = report.split_once("--tolerance ").unwrap().1.lines().next().unwrap();
        assert_eq!(named, "'grad/attn[0]=atol:5.005e-01,reason:TEXT'");
        let named = named.trim_matches('\'').replace("TEXT", "it is\u{1b}known");
        let (code, report, _) = run(&files, &["--criterion", criterion, "--tolerance", &named]);
        assert_eq!(code, Some(0), "{report}");
        assert!(report.contains("accepted: grad/attn[0]: it is\\u{1b}known\n"), "{report}");
        assert!(report.contains("1 bitwise, 1 accepted"), "{report}");
    }
}

#[test]
fn each_limit_is_held_to() {
    let (expected, actual) = (trace(&[("grad/a", 2.)]), trace(&[("grad/a", 2.5)]));
    let accepts = |rule: &str| {
        let mut comparison = compare(&actual, &expected, Criterion::Close);
        comparison.accept(&Accepted::default().tolerance(rule).unwrap(), &actual, &expected);
        assert_eq!(comparison.unneeded.is_empty(), comparison.passes(), "{rule}");
        comparison.passes()
    };
    for (rule, expected) in [
        ("a=atol:0.5,reason:r", true),
        ("a=atol:0.49,reason:r", false),
        ("a=rtol:0.25,reason:r", true),
        ("a=rtol:0.24,reason:r", false),
        ("a=scaled:0.25,reason:r", true),
        ("a=scaled:0.24,reason:r", false),
        ("a=atol:0.5,scaled:0.24,reason:r", false),
        ("a=rtol:0.1,atol:0.3,reason:r, with a comma", true),
        ("grad/a=atol:0.5,reason:r", true),
        ("*=atol:0.5,reason:r", true),
        ("b=atol:0.5,reason:r", false),
        ("forward/a=atol:0.5,reason:r", false),
    ] {
        assert_eq!(accepts(rule), expected, "{rule}");
    }
    let nan = trace(&[("grad/a", f32::NAN)]);
    let mut comparison = compare(&nan, &expected, Criterion::Close);
    let any = Accepted::default().tolerance("a=atol:1e300,reason:r").unwrap();
    comparison.accept(&any, &nan, &expected);
    assert!(!comparison.passes(), "no tolerance accepts a nan");
}

#[test]
fn what_one_side_lacks_can_be_ignored_by_name() {
    let expected = trace(&[("a", 1.), ("buffer/bn.num_batches_tracked", 1.)]);
    let actual = trace(&[("a", 1.), ("more", 1.)]);
    let ignoring = |rules: &[&str]| -> Comparison {
        let mut comparison = compare(&actual, &expected, Criterion::Bitwise);
        let accepted = rules.iter().try_fold(Accepted::default(), |all, rule| all.ignore(rule));
        comparison.accept(&accepted.unwrap(), &actual, &expected);
        comparison
    };
    assert!(ignoring(&["bn.num_batches_tracked=tch has none", "more=extra"]).passes());
    assert!(!ignoring(&["bn.num_batches_tracked=tch has none"]).passes());
    let unneeded = ignoring(&["a=it is the same", "bn=b", "more=m"]);
    assert!(unneeded.passes());
    assert_eq!(unneeded.unneeded, ["a=it is the same"]);
}

#[test]
fn rules_stand_in_a_file() {
    let (folder, files) =
        files("accepted_file", &[("a", 1.5), ("b", 1.)], &[("a", 1.), ("b", 2.), ("c", 1.)]);
    let rules = folder.join("tolerances.toml");
    let with = |text: &str| {
        fs::write(&rules, text).unwrap();
        run(&files, &["--tolerances", rules.to_str().unwrap()])
    };
    let good = "[[tolerance]]\npattern = \"a\"\natol = 0.5\nreason = \"one\"\n\n\
                [[ignore]]\npattern = \"b\"\nreason = \"two\"\n\n[[ignore]]\npattern = \"c\"\nreason = \"three\"\n\
                [[ignore]]\npattern = \"d\"\nreason = \"four\"\n";
    let (code, report, _) = with(good);
    assert_eq!(code, Some(0), "{report}");
    for line in
        ["accepted: a: one\n", "accepted: c: three\n", "no tensor needed \"d\": remove it\n"]
    {
        assert!(report.contains(line), "{line}{report}");
    }
    for (text, says) in [
        ("[[tolerance]]\npattern = \"a\"\natol = 1\n", "line 1: missing field `reason`"),
        ("[[tolerance]]\npattern = \"a\"\nreason = \"r\"\n", "at least one of"),
        ("[[ignore]]\npattern = \"a\"\natol = 1.0\nreason = \"r\"\n", "none to be ignored"),
        ("[[ignore]]\npattern = \"a\"\nreason = \" \"\n", "has no reason"),
        ("[[tolerance]]\npattern = \"a\"\natol = nan\nreason = \"r\"\n", "not a number from 0 on"),
        (
            "[[ignore]]\npattern = \"a\"\nreason = \"r\"\n\n[[ignore]]\npattern = \"b\"\nreason = \"\"\n",
            "line 5: \"b\" has no reason",
        ),
        ("\n[[tolerence]]\n", "line 2: unknown field `tolerence`"),
        ("=", "tolerances.toml"),
    ] {
        let (code, _, error) = with(text);
        assert_eq!(code, Some(2), "{text}");
        assert!(error.contains(says) && error.lines().count() == 1, "{says}\n{error}");
    }
    fs::write(&rules, b"# \xe9\n\n# \xff").unwrap();
    let (code, _, error) = run(&files, &["--tolerances", rules.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(error.contains("line 1: it is not UTF-8"), "{error}");
    let missing = run(&files, &["--tolerances", Path::new("missing.toml").to_str().unwrap()]);
    assert_eq!(missing.0, Some(2));
    assert!(missing.2.contains("cannot read missing.toml"), "{}", missing.2);
}

#[test]
fn a_rule_of_another_form_is_an_error() {
    for (rule, says) in [
        ("a", "is not PATTERN="),
        ("a=atol:1", "has no reason"),
        ("a=atol:1,reason:", "has no reason"),
        ("=atol:1,reason:r", "has no pattern"),
        ("a=reason:r", "at least one of"),
        ("a=atol,reason:r", "is not PATTERN="),
        ("a=atol:x,reason:r", "is not PATTERN="),
        ("a=atol:-1,reason:r", "not a number from 0 on"),
        ("a=atol:inf,reason:r", "not a number from 0 on"),
        ("a=atol:1,atol:2,reason:r", "atol twice"),
        ("a=btol:1,reason:r", "is not PATTERN="),
    ] {
        let error = format!("{:#}", Accepted::default().tolerance(rule).unwrap_err());
        assert!(error.contains(says), "{rule}: {error}");
    }
    assert!(Accepted::default().ignore("a").is_err());
    assert!(Accepted::default().ignore("a=").is_err());
}

#[test]
fn the_option_that_a_report_proposes_works_for_every_name() {
    let names = ["a=b", "a=atol:1", "a,b", "x*", "forward/fc[0]", "it's $HOME", "forward/a;b"];
    for (at, name) in names.iter().enumerate() {
        let (_, files) = files(&format!("accepted_proposed_{at}"), &[(name, 1.5)], &[(name, 1.)]);
        let (code, report, _) = run(&files, &[]);
        assert_eq!(code, Some(1));
        // It is a word for a shell.
        let rule = report.lines().find_map(|line| line.split_once("--tolerance ")).unwrap().1;
        let echo = Command::new("sh").args(["-c", &format!("printf %s {rule}")]).output().unwrap();
        let (code, report, error) = run(&files, &["--tolerance", &stdout(&echo)]);
        assert_eq!(code, Some(0), "{name}: {report}{error}");
    }
}

#[test]
fn names_with_slashes_are_renamed_and_a_rule_without_a_tensor_is_an_error() {
    let (_, files) = files("accepted_rename", &[("enc.w", 1.)], &[("encoder/layer/w", 1.)]);
    assert_eq!(run(&files, &["--rename", "encoder/layer/w=enc.w"]).0, Some(0));
    let (code, _, error) = run(&files, &["--rename", "encoder/layer/w=enc.w", "--rename", "x=y"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("the renaming rule \"x=y\" matches no tensor"), "{error}");
    let shadowed = run(&files, &["--rename", "*/*/*=*", "--rename", "encoder/layer/w=enc.w"]);
    assert_eq!(shadowed.0, Some(2));
}
