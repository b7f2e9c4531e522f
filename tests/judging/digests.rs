//! Cases of digests: they are checked and compared to the bit as those of values are, refer to a checkpoint for their
//! initial values, and what is wrong with either is said.

#![cfg(feature = "libtorch")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::common::{pytorch, scratch, tch_parity};
use serde_json::{Value as Json, json};
use tch_parity::{Case, Criterion, Digest, Parity, Trace, compare};

/// What `tests/digests.py` records.
static RECORDED: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = scratch("digests");
    pytorch("tests/digests.py", &[folder.to_str().unwrap()]);
    folder
});

/// Runs `tch-parity` in the folder of the recordings, and returns its exit code and what it writes.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let mut command = tch_parity();
    command.args(args).current_dir(&*RECORDED).env_remove("GITHUB_ACTIONS");
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    (output.status.code(), text)
}

fn load(name: &str) -> Trace {
    Trace::load(RECORDED.join(name)).unwrap()
}

#[test]
fn a_case_of_digests_is_replayed_and_compared_to_the_bit() {
    let (code, text) = run(&["check", "cases"]);
    assert_eq!(code, Some(0), "{text}");
    let same = text.lines().filter(|line| line.starts_with("same: ")).collect::<Vec<_>>();
    // With the gradients of 2 steps after clipping, of which the case of values takes its own.
    let taken = 2 * 6;
    let tensors = |at: usize| -> usize {
        let line = same[at].split_once(" (").unwrap().1;
        line.split_once(" tensors").unwrap().0.parse().unwrap()
    };
    assert_eq!(tensors(0), tensors(1) + taken, "{text}");

    let (digests, values) = ("cases/digests.safetensors", "cases/values.safetensors");
    let trace = load(digests);
    let count = |of: &dyn Fn(&str) -> bool| trace.names().filter(|name| of(name)).count();
    assert!(count(&|name| trace.is_digest(name)) > 30);
    // What a replay and a port start from is there.
    for name in ["input/input", "input/target", "rng", "grad/output", "step/2/taken/[factor]"] {
        assert!(trace.get(name).is_some(), "{name}");
    }
    assert!(trace.is_digest("param/5.weight") && trace.is_digest("step/2/state/exp_avg/5.weight"));
    // Clipping is computed in the replay, and was compared.
    assert!(trace.is_digest("step/2/taken/5.weight"));
    assert!(load("plain.safetensors").is_digest("step/2/taken/5.weight"));
    for (actual, expected) in [(digests, values), (values, digests), (digests, digests)] {
        let (code, text) = run(&["compare", actual, expected]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(" tensors bitwise; bitwise required"), "{text}");
    }
    // A port records values.
    let case = Case::load(RECORDED.join(digests)).unwrap();
    let report = Parity::default().report(&load(values), &case).unwrap();
    assert!(report.comparison.passes(), "{}", report.text());
    let report = Parity::default().report(&load("wrong.safetensors"), &case).unwrap();
    assert!(report.origin.unwrap().starts_with("forward/1 is the first to differ"));
}

#[test]
fn the_first_tensor_to_differ_is_named_with_both_summaries() {
    for file in ["cases/digests.safetensors", "cases/values.safetensors"] {
        let (code, text) = run(&["compare", "wrong.safetensors", file]);
        assert_eq!(code, Some(1), "{text}");
        let origin = text.lines().rev().nth(1).unwrap();
        let [actual, expected] =
            ["wrong.safetensors", file].map(|file| load(file).digest("forward/1").unwrap());
        assert!(
            origin.starts_with("forward/1 is the first to differ (its SHA-256 is "),
            "{origin}"
        );
        assert!(origin.contains(&format!(": {actual} instead of {expected})")), "{origin}");
        assert!(origin.contains("; forward/0 agrees"), "{origin}");
        assert!(!text.contains("needs the values"), "{text}");

        let (code, text) = run(&["compare", "wrong.safetensors", file, "--criterion", "close"]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("close needs the values, and "), "{text}");
    }
}

#[test]
fn the_digests_of_python_are_those_of_rust() {
    let (values, digests) = (load("dtypes.safetensors"), load("dtypes_digests.safetensors"));
    assert!(values.names().eq(digests.names()) && digests.iter().next().is_none());
    for name in values.names() {
        let [ours, theirs] = [&values, &digests].map(|trace| trace.digest(name).unwrap());
        assert!(ours.is_same(&theirs), "{name}");
        let counts = |digest: &Digest| (digest.nan, digest.inf, digest.min, digest.max);
        assert_eq!(counts(&ours), counts(&theirs), "{name}");
        for (a, b) in [(ours.mean, theirs.mean), (ours.norm, theirs.norm)] {
            let near = |(a, b): (f64, f64)| (a - b).abs() <= 2e-5 * b.abs();
            assert!(
                a.is_some() == b.is_some() && a.zip(b).is_none_or(near),
                "{name}: {ours} {theirs}"
            );
        }
    }
    assert!(compare(&values, &digests, Criterion::Bitwise).passes());

    // libtorch's tensors of these dtypes come in and out as they are.
    for dtype in ["C64", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "BF16", "BOOL"] {
        let name = format!("{dtype}/0");
        let mut again = Trace::new();
        again.push(&name, &values.tensor(&name).unwrap()).unwrap();
        assert_eq!(again.get(&name).unwrap(), values.get(&name).unwrap());
    }

    let error = format!("{:#}", values.tensor("F8_E8M0/0").unwrap_err());
    assert_eq!(error, "F8_E8M0/0: tch has no dtype F8_E8M0");

    // A file that is read and written again is the same file, and a digest of Rust's can be written.
    for file in ["cases/digests.safetensors", "dtypes_digests.safetensors"] {
        let mut written = Vec::new();
        load(file).write(&mut written).unwrap();
        assert!(written == fs::read(RECORDED.join(file)).unwrap(), "{file}");
    }
    let mut again = Trace::new();
    for (name, view) in values.iter() {
        again.push_digest(name, Digest::of(&view)).unwrap();
    }
    assert!(again.push_digest("F32/0", values.digest("F32/0").unwrap()).is_err());
    again.save(RECORDED.join("of_rust.safetensors")).unwrap();
    assert!(compare(&load("of_rust.safetensors"), &digests, Criterion::Bitwise).passes());
    let (code, text) = run(&["show", "dtypes_digests.safetensors", "BF16/2"]);
    assert_eq!(code, Some(0), "{text}");
    let ends = ": min -0.0, max 3.0, mean 1.00033, norm 3.0, 2 nan, 2 inf)\n";
    assert!(
        text.starts_with("BF16/2\tdigest(BF16, [7], sha256 ") && text.ends_with(ends),
        "{text}"
    );
}

#[test]
fn a_checkpoint_that_is_missing_or_changed_is_an_error() {
    let folder = scratch("digests_checkpoint");
    let case = folder.join("case.safetensors");
    let mut metadata = metadata_of("cases/digests.safetensors");
    metadata["initial"]["file"] = "model.safetensors".into();
    with_metadata("cases/digests.safetensors", &metadata, &case);
    let says = |text: &str| {
        let error = format!("{:#}", Case::load(&case).unwrap_err());
        assert!(error.contains(text) && error.contains("model.safetensors"), "{error}");
        let (code, error) = run(&["check", case.to_str().unwrap()]);
        assert!(code == Some(2) && error.contains(text) && error.lines().count() == 1, "{error}");
    };
    says("No such file");
    let mut checkpoint = fs::read(RECORDED.join("model.safetensors")).unwrap();
    *checkpoint.last_mut().unwrap() ^= 1;
    fs::write(folder.join("model.safetensors"), &checkpoint).unwrap();
    says("it has changed since");
    *checkpoint.last_mut().unwrap() ^= 1;
    fs::write(folder.join("model.safetensors"), &checkpoint).unwrap();
    let loaded = Case::load(&case).unwrap();
    let values = load("cases/values.safetensors");
    assert_eq!(
        loaded.trace.get("param/5.weight").unwrap().data(),
        values.get("param/5.weight").unwrap().data()
    );
    assert_eq!(loaded.trace.strides("param/0.weight"), values.strides("param/0.weight"));

    // Without the checkpoint the case can be read and compared, and its values are asked for in vain.
    let trace = load("cases/digests.safetensors");
    let error = format!("{:#}", trace.tensor("param/5.weight").unwrap_err());
    assert!(error.contains("are in the checkpoint ../model.safetensors"), "{error}");
    let error = format!("{:#}", trace.tensor("forward/0").unwrap_err());
    assert!(
        error.contains("forward/0 was recorded as a digest, and its values are needed"),
        "{error}"
    );

    for (edit, text) in [
        (json!({"file": "/etc/passwd"}), "is not relative to the case"),
        (json!({"file": ""}), "is not relative to the case"),
        (json!({"sha256": "12"}), "the checkpoint's sha256 is not one"),
        (json!({"tensors": {"input/input": "x"}}), "the file has no digest of it"),
        (json!({"tensors": {"param/9": "x"}}), "the file has no digest of it"),
        (json!({"more": 1}), "unknown field `more`"),
        (json!({"tensors": {"param/5.weight": "5.wait"}}), "it has no tensor 5.wait"),
        (
            json!({"tensors": {"param/5.weight": "5.bias"}}),
            "its 5.bias is of another dtype or shape",
        ),
    ] {
        let mut metadata = metadata.clone();
        metadata["initial"].as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        with_metadata("cases/digests.safetensors", &metadata, &case);
        let error = format!("{:#}", Case::load(&case).unwrap_err());
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_damaged_digest_is_an_error() {
    let digest = || {
        json!({"dtype": "F32", "shape": [2], "sha256": "0".repeat(64), "min": 0.0, "max": 1.0, "mean": 0.5,
            "norm": null, "nan": 0, "inf": 0})
    };
    let file = |order: &[&str], digests: &str| {
        let metadata = json!({"format": 2, "order": order}).to_string();
        let length = digests.len();
        let header = json!({
            "__metadata__": {"tch-parity": metadata},
            "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "__digests__": {"dtype": "U8", "shape": [length], "data_offsets": [1, 1 + length]},
        })
        .to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), b"\0", digests.as_bytes()]
            .concat()
    };
    let of_b = |digest: Json| json!({ "b": digest }).to_string();
    let good = of_b(digest());
    let trace = Trace::from_bytes(file(&["b", "a"], &good)).unwrap();
    assert!(trace.names().eq(["b", "a"]) && trace.get("b").is_none() && trace.contains("b"));
    let with = |key: &str, value: Json| {
        let mut digest = digest();
        digest[key] = value;
        of_b(digest)
    };
    let twice = format!("{},{}", &good[..good.len() - 1], &good[1..]);
    for (order, digests, says) in [
        (&["a"][..], &*good, "the recorded order leaves out b"),
        (&["a", "b", "b"], &*good, "names b twice, or there is no such tensor"),
        (&["a", "b"], &*good.replace("\"b\"", "\"a\""), "both a and its digest"),
        (&["a", "b"], "{", "in __digests__"),
        (&["a", "b"], "[]", "in __digests__"),
        (&["a", "b"], &*twice, "two entries named b"),
        (&["a", "b"], &*with("sha256", "F".repeat(64).into()), "64 hexadecimal digits"),
        (&["a", "b"], &*with("sha256", "12".into()), "64 hexadecimal digits"),
        (&["a", "b"], &*with("shape", json!([usize::MAX, 2])), "is too large"),
        (&["a", "b"], &*with("dtype", "F33".into()), "F33"),
        (&["a", "b"], &*with("nan", json!(-1)), "-1"),
        (&["a", "b"], &*with("more", json!(1)), "unknown field `more`"),
    ] {
        let error = format!("{:#}", Trace::from_bytes(file(order, digests)).unwrap_err());
        assert!(error.contains(says), "{says}: {error}");
    }
    let mut random = crate::common::Random::new(&crate::common::seed());
    let bytes = file(&["b", "a"], &good);
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        let at = random.below(damaged.len());
        damaged[at] = random.below(256) as u8;
        if let Ok(damaged) = Trace::from_bytes(damaged) {
            compare(&damaged, &trace, Criterion::Close);
            let _ = damaged.write(&mut Vec::new());
        }
    }
}

/// Returns the header of a file, and the bytes after it.
fn split(file: &str) -> (Json, Vec<u8>) {
    let bytes = fs::read(RECORDED.join(file)).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).unwrap(), data.to_vec())
}

fn metadata_of(file: &str) -> Json {
    let header = split(file).0;
    serde_json::from_str(header["__metadata__"]["tch-parity"].as_str().unwrap()).unwrap()
}

/// Writes a file of the recordings with other metadata.
fn with_metadata(file: &str, metadata: &Json, to: &Path) {
    let (mut header, data) = split(file);
    header["__metadata__"]["tch-parity"] = metadata.to_string().into();
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(to, [&length, header.as_bytes(), &data].concat()).unwrap();
}
