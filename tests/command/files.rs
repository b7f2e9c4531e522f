//! Files of tensors that are not safetensors files: what PyTorch and NumPy write is read as they load it, and what
//! nobody should trust is refused. Python writes all of it anew.

#![cfg(feature = "libtorch")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::common::{assert_same, pytorch, scratch, stdout, tch_parity};
use safetensors::tensor::Dtype;
use tch_parity::{Criterion, Trace, compare};

/// The folder that Python wrote, and a line for each bad file.
static WRITTEN: LazyLock<(PathBuf, String)> = LazyLock::new(|| {
    let folder = scratch("files");
    let printed = pytorch("tests/checkpoints.py", &[folder.to_str().unwrap()]);
    (folder, printed)
});

/// The same tensors in a trace that knows no strides, sorted by name.
fn plain(trace: &Trace) -> Trace {
    let mut names = trace.names().collect::<Vec<_>>();
    names.sort();
    let mut plain = Trace::new();
    names.iter().for_each(|name| plain.push_view(*name, &trace.get(name).unwrap()).unwrap());
    plain
}

fn load(path: impl AsRef<Path>) -> Trace {
    Trace::load(path).unwrap_or_else(|err| panic!("{err:#}"))
}

#[test]
fn what_pytorch_and_numpy_write_is_read_as_they_load_it() {
    let (folder, _) = &*WRITTEN;
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_file = |path: &PathBuf| {
        ["pt", "npz", "npy"].iter().any(|kind| path.extension().is_some_and(|e| e == *kind))
    };
    let files = files.filter(is_file).collect::<Vec<_>>();
    assert_eq!(files.len(), 12, "{files:?}");
    for file in &files {
        let expected = load(file.with_extension("expected.safetensors"));
        println!("{}", file.display());
        assert_same(&plain(&load(file)), &plain(&expected));
    }
}

#[test]
fn the_order_the_strides_and_the_values_of_a_checkpoint_are_kept() {
    let (folder, _) = &*WRITTEN;
    let views = load(folder.join("views.pt"));
    assert_eq!(views.names().take(3).collect::<Vec<_>>(), ["transposed", "expanded", "sliced"]);
    assert_eq!(views.strides("transposed"), Some(vec![1, 12, 4]));
    assert_eq!(views.strides("expanded"), Some(vec![0, 1]));
    assert_eq!(views.strides("channels"), Some(vec![60, 1, 15, 3]));
    assert_eq!(views.strides("parameter"), Some(vec![1]));

    let run = load(folder.join("nested.pt")).run::<serde_json::Value>().unwrap().unwrap();
    let values = &run["values"];
    assert_eq!((&values["epoch"], &values["big"]), (&3.into(), &(1i64 << 40).into()));
    assert_eq!(values["best"], "Infinity");
    assert_eq!((&values["dtype"], &values["device"]), (&"torch.float16".into(), &"cpu".into()));
    assert_eq!(values["optimizer/param_groups/0/betas/1"], 0.999);
    assert!(values["note"].is_null() && values.get("note").is_some());
}

/// Python's safetensors does not write this dtype.
#[test]
fn a_checkpoint_can_hold_exponents() {
    let (folder, _) = &*WRITTEN;
    let exponents = load(folder.join("others/exponents.pt"));
    let view = exponents.get("e").unwrap();
    assert_eq!((view.dtype(), view.data()), (Dtype::F8_E8M0, &[125, 127, 133][..]));
    let shown =
        stdout(&tch_parity().arg("show").arg(folder.join("others/exponents.pt")).output().unwrap());
    assert!(shown.contains("float8_e8m0fnu"), "{shown}");
}

#[test]
fn what_nobody_should_trust_is_refused_in_words() {
    let (folder, bad) = &*WRITTEN;
    let mut count = 0;
    for line in bad.lines() {
        let (name, says) = line.split_once('\t').unwrap();
        let err = Trace::load(folder.join("bad").join(name)).map(drop).unwrap_err();
        let message = format!("{err:#}");
        assert!(message.contains(says) && message.len() < 2000, "{name}: {message}");
        count += 1;
    }
    assert!(count > 50, "{count}");
    // What a pickle would call was not called.
    assert!(!Path::new("executed").exists());
}

#[test]
fn checkpoints_in_other_files_compare_as_one() {
    let (folder, _) = &*WRITTEN;
    let shards = |name: &str| folder.join("shards").join(name);
    let expected = load(folder.join("shards.expected.safetensors"));
    for name in ["two", "three", "bin", "two/model.safetensors.index.json"] {
        assert_same(&plain(&load(shards(name))), &plain(&expected));
    }
    let compared = tch_parity().arg("compare").args([shards("two"), shards("three")]).output();
    let text = stdout(&compared.unwrap());
    assert!(text.starts_with("same: ") && text.contains("5 tensors bitwise"), "{text}");
    for (name, says) in [
        ("outside", "which is not beside it"),
        ("absolute", "which is not beside it"),
        ("missing", "holds layer.9.weight, which it does not"),
        ("absent", "its index does not say that \"model-0.safetensors\" holds layer.0.weight"),
        (
            "damaged",
            "the index \"model.safetensors.index.json\" of a checkpoint is damaged: EOF while parsing",
        ),
        ("no_map", "is damaged: missing field `weight_map`"),
        ("", "a folder without model.safetensors.index.json"),
    ] {
        let err = Trace::load(shards(name)).map(drop).unwrap_err();
        assert!(format!("{err:#}").contains(says), "{name}: {err:#}");
    }
}

#[test]
fn tied_weights_are_named_and_not_doubled() {
    let (folder, _) = &*WRITTEN;
    let (tied, separate) = (folder.join("tied.pt"), folder.join("tied.expected.safetensors"));
    let (ours, theirs) = (load(&tied), load(&separate));
    assert_eq!(ours.tied_to("head"), Some("embed"));
    assert_eq!((ours.tied_to("embed"), ours.tied_to("part")), (None, None));

    let both = compare(&ours, &ours, Criterion::Bitwise);
    assert_eq!(both.tensors.len(), 2);
    assert_eq!(both.noted, ["head is the storage of embed on both sides, and compared once"]);
    // Where one side has it apart, it can differ, and that is said.
    let apart =
        "head is the storage of embed on the actual side, and a copy of it on the expected side";
    let untied = compare(&ours, &theirs, Criterion::Bitwise);
    assert_eq!((untied.tensors.len(), &untied.noted[..]), (3, &[apart.to_owned()][..]));
    let untied = compare(&theirs, &ours, Criterion::Bitwise);
    assert_eq!(untied.tensors.len(), 3);
    assert!(untied.noted[0].contains("on the expected side, and a copy of it on the actual side"));
    // A side that lacks it may have been saved without what is tied.
    let mut fewer = Trace::new();
    for name in ["embed", "part"] {
        fewer.push_view(name, &theirs.get(name).unwrap()).unwrap();
    }
    let lacking = compare(&fewer, &ours, Criterion::Bitwise);
    assert!(lacking.passes());
    assert_eq!(lacking.not_compared[0].reason.as_deref(), Some("it is the storage of embed"));

    let shown = stdout(&tch_parity().arg("show").arg(&tied).output().unwrap());
    assert_eq!(shown.matches("head\tis the storage of embed\n").count(), 1, "{shown}");
    let named = stdout(&tch_parity().arg("show").arg(&tied).arg("head").output().unwrap());
    assert!(named.starts_with("head\ttensor(["), "{named}");
}

/// Checks what is close against `torch.testing.assert_close`.
#[test]
fn float8_and_complex_are_judged_as_assert_close_judges_them() {
    let (folder, _) = &*WRITTEN;
    let mut dtypes = Vec::new();
    let narrow = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"];
    for name in ["complex64", "complex128"].into_iter().chain(narrow) {
        let side = |side: &str| load(folder.join(format!("torch.{name}.{side}.judged")));
        let passes = fs::read_to_string(folder.join(format!("torch.{name}.passes"))).unwrap();
        assert!(passes.contains('0') && passes.contains('1'), "{name}");
        let compared = compare(&side("actual"), &side("expected"), Criterion::Close);
        assert_eq!(compared.tensors.len(), passes.len());
        for tensor in &compared.tensors {
            let at = tensor.name.parse::<usize>().unwrap();
            let theirs = passes.as_bytes()[at] == b'1';
            // The tolerance over the tensor is stricter than assert_close's atol.
            let found = &tensor.statistics;
            let is_complex = name.starts_with("complex");
            let ours = if is_complex { found.not_close == 0 } else { tensor.passes };
            assert_eq!(ours, theirs, "{name}: {tensor:?}");
            assert!(!is_complex || theirs || !tensor.passes, "{name}: {tensor:?}");
            if let Some(worst) = &found.worst {
                assert!(!worst.actual.0.is_empty() && !worst.expected.0.is_empty());
            }
        }
        dtypes.extend(compared.tensors.first().map(|tensor| tensor.dtype.clone()));
    }
    assert_eq!(dtypes[..3], ["C64", "C128", "F8_E4M3"]);
}
