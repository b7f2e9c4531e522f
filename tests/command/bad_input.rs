//! Bad input: `tch-parity` says in one line what is wrong, and exits with code 2. It prints nothing to stdout, no
//! panic and no backtrace, and leaves no half-written file.

#![cfg(feature = "libtorch")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{ROOT, Random, data, scratch, stdout, tch_parity};
use serde_json::Value;
use tch::{Kind, Tensor};
use tch_parity::{Case, Replay, Run, ThreeLayerNet, Trace, train};

fn assert_refused(command: &mut Command, says: &str) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command:?}\n{stderr}");
    assert!(output.stdout.is_empty(), "{command:?}");
    assert!(stderr.starts_with("error: ") && stderr.contains(says), "{command:?}\n{stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{command:?}\n{stderr}");
}

fn assert_args_refused(args: &[&str], says: &str) {
    assert_refused(tch_parity().args(args), says);
}

/// Writes a safetensors file with this header, as the specification of the format says.
fn safetensors(folder: &Path, name: &str, header: &str, data: &[u8]) -> PathBuf {
    let file = folder.join(name);
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&file, [&length, header.as_bytes(), data].concat()).unwrap();
    file
}

fn show(file: impl AsRef<OsStr>) -> Command {
    let mut command = tch_parity();
    command.arg("show").arg(file);
    command
}

#[test]
fn wrong_arguments() {
    assert_args_refused(&[], "requires a subcommand");
    assert_args_refused(&["notebok"], "notebok");
    assert_args_refused(&["notebook", "--bogus"], "--bogus");
    assert_args_refused(&["show"], "FILE");
    for steps in ["0", "-3", "100001", "99999999999999999999", "1.5", "many"] {
        assert_args_refused(&["notebook", "--steps", steps], steps);
    }
    for lr in ["nan", "inf", "1e400", "-0.1", "fast", ""] {
        assert_args_refused(&["notebook", "--lr", lr], "--lr");
    }
}

#[test]
fn worksheets_that_cannot_be_filled_in() {
    let folder = scratch("bad_worksheet");
    let case = data("cases/zero.safetensors");
    let case = case.to_str().unwrap();
    for command in ["worksheet", "figure"] {
        let missing = folder.join("missing.safetensors");
        assert_args_refused(&[command, missing.to_str().unwrap()], "missing.safetensors");
        // The file is a case of another model, or no case at all.
        let encoder = Path::new(ROOT).join("examples/encoder.safetensors");
        assert_args_refused(&[command, encoder.to_str().unwrap()], "not a case of a ThreeLayerNet");
        assert_args_refused(&[command, data("notebook.txt").to_str().unwrap()], "notebook.txt");
        // An output overwrites neither an input nor anything but a regular file.
        let before = fs::read(case).unwrap();
        assert_args_refused(
            &[command, case, "--output", case],
            "refusing to overwrite an input file",
        );
        let other = folder.join("other.safetensors");
        assert_args_refused(
            &[command, "--output", other.to_str().unwrap()],
            "refusing to overwrite a safetensors file",
        );
        assert_eq!(fs::read(case).unwrap(), before);
        assert_args_refused(&[command, "--output", folder.to_str().unwrap()], "not a regular file");
        assert_args_refused(
            &[command, "--output", "/no/such/folder/it"],
            "cannot write /no/such/folder/it",
        );
    }
    assert_args_refused(
        &["worksheet", "--format", "pdf"],
        "[possible values: text, markdown, html, ipynb]",
    );
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_net_too_large_to_be_drawn() {
    let folder = scratch("bad_figure");
    let (file, page) = (folder.join("65.safetensors"), folder.join("65.html"));
    let case = net_of(65);
    case.case.trace.save(&file).unwrap();
    let says = "a layer of 65 units is too large to be drawn: the limit is 64";
    assert_refused(tch_parity().arg("figure").arg(&file), says);
    // The rest of the worksheet is written.
    for format in ["html", "ipynb"] {
        let mut command = tch_parity();
        command.arg("worksheet").arg(&file).args(["--format", format, "--output"]).arg(&page);
        assert_eq!(stdout(&command.output().unwrap()), "");
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains(&format!("No figure: {says}.")), "{format}");
        assert!(text.contains("All 29 rows agree"), "{format}");
    }
}

/// Records a run of a net with that many inputs.
fn net_of(inputs: i64) -> Replay {
    tch::manual_seed(0);
    let model = ThreeLayerNet::new(inputs, 2, 2).unwrap();
    let stored = Replay::load(data("notebook.safetensors")).unwrap();
    let run = Run { steps: 1, ..stored.run };
    let x = Tensor::ones([1, inputs], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let mut trace = train(&model, &x, &Tensor::from_slice2(&[[0f32]]), &run).unwrap();
    trace.describe(&run, &stored.case.environment).unwrap();
    Replay::new(Case::new(trace).unwrap()).unwrap()
}

#[test]
fn a_learning_rate_that_float32_cannot_hold() {
    assert_args_refused(
        &["notebook", "--lr", "1e300"],
        "error: step 1: fc1.weight: value cannot be converted to type float without overflow",
    );
}

#[test]
fn files_that_cannot_be_read() {
    let folder = scratch("bad_input_unreadable");
    assert_refused(&mut show(folder.join("none")), "No such file");
    assert_refused(&mut show(&folder), "a folder without model.safetensors.index.json");
    assert_refused(&mut show("/dev/zero"), "not a regular file");
    assert_args_refused(&["check", "none\n::error::of"], r"cannot read none\n::error::of: No such");
    let file = data("notebook.safetensors");
    assert_refused(show(&file).args(["grad/z", "grad/q"]), "holds no tensor \"grad/q\"");
}

#[test]
fn files_that_are_damaged() {
    let folder = scratch("bad_input_damaged");
    let whole = fs::read(data("notebook.safetensors")).unwrap();
    let file = folder.join("truncated");
    for length in [1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert_refused(&mut show(&file), "not a safetensors file, or a damaged one");
    }
    fs::write(&file, [&whole[..], b"x"].concat()).unwrap();
    assert_refused(&mut show(&file), "not a safetensors file, or a damaged one");
    let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    assert_refused(&mut show(safetensors(&folder, "twice", twice, &[0])), "two entries named a");
    fs::write(&file, "model = ThreeLayerNet(2, 2, 3)\n").unwrap();
    assert_refused(&mut show(&file), "not a safetensors file, or a damaged one");
}

#[test]
fn files_that_hold_what_cannot_be_shown() {
    let folder = scratch("bad_input_unsupported");
    let tensor = |dtype: &str, shape: &str, bytes: usize| {
        let header =
            format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
        show(safetensors(&folder, "one", &header, &vec![0; bytes]))
    };
    assert_refused(&mut tensor("F6_E2M3", "[4]", 3), "t: PyTorch has no dtype F6_E2M3");
    assert_refused(&mut tensor("F4", "[2,1]", 1), "t: PyTorch has floats of 4 bits only in pairs");
    assert_refused(
        &mut tensor("F32", "[0,9223372036854775808]", 0),
        "t: its sizes are out of range",
    );
    assert_refused(
        &mut tensor("F32", "[0,4611686018427387904,4]", 0),
        "t: its sizes are out of range",
    );
    let deep = format!("[1{}]", ",1".repeat(99_999));
    assert_refused(&mut tensor("F32", &deep, 4), "t: cannot print a tensor of 100000 dim");
}

#[test]
fn files_that_record_an_order_of_other_names() {
    let folder = scratch("bad_input_order");
    for (metadata, says) in [
        (r#"{\"format\":2,\"order\":[\"a\",\"b\"]}"#, "names b"),
        (r#"{\"format\":2,\"order\":[\"a\",\"a\"]}"#, "names a twice"),
        (r#"{\"format\":2,\"order\":[]}"#, "leaves out a"),
        (r#"{\"format\":2,\"order\":[1]}"#, "expected a string"),
        (r#"{\"format\":2}"#, "missing field `order`"),
        (r#"{\"format\":2,\"order\":[\"a\"],\"runs\":1}"#, "unknown field `runs`"),
        (r#"{\"format\":3,\"anything\":[]}"#, "format 3 is unknown"),
        ("3", "in the metadata under tch-parity"),
        ("{", "in the metadata under tch-parity"),
    ] {
        let header = format!(
            r#"{{"__metadata__":{{"tch-parity":"{metadata}"}},"a":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}"#
        );
        assert_refused(&mut show(safetensors(&folder, "file", &header, &[0; 4])), says);
    }
}

#[test]
fn files_that_list_strides_that_no_tensor_can_have() {
    let folder = scratch("bad_input_strides");
    for (strides, says) in [
        (r#"{\"b\":[1,2]}"#, "the strides of b: there is no such tensor"),
        (r#"{\"a\":[1]}"#, "the strides of a: 1 are listed, and it has 2 dimensions"),
        (r#"{\"a\":[1,-2]}"#, "invalid value: integer `-2`"),
        (r#"{\"a\":[1,1.5]}"#, "invalid type: floating point"),
        (r#"{\"a\":[3,1]}"#, "the strides of a: they are listed, and are those of a new tensor"),
        (r#"{\"e\":[1,1]}"#, "the strides of e: they are listed, and it has no elements"),
        (r#"{\"a\":[1,400000]}"#, "span 3200008 bytes, and 1048576 are the most for its size"),
        (r#"{\"a\":[1,9223372036854775807]}"#, "are too large"),
        (r#"{\"a\":[18446744073709551615,1]}"#, "are too large"),
        (r#"{\"a\":[1,2],\"a\":[1,2]}"#, "two entries named a"),
        (r#"[[1,2]]"#, "invalid type: sequence"),
        ("7", "invalid type: integer"),
    ] {
        let header = format!(
            r#"{{"__metadata__":{{"tch-parity":"{{\"format\":2,\"order\":[\"a\",\"e\"],\"strides\":{strides}}}"}},"a":{{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}},"e":{{"dtype":"F32","shape":[0,3],"data_offsets":[24,24]}}}}"#
        );
        let file = safetensors(&folder, "file", &header, &[0; 24]);
        assert_refused(&mut show(&file), says);
        assert_refused(tch_parity().arg("compare").args([&file, &file]), says);
    }
}

#[test]
fn a_bool_of_another_byte_is_true_as_in_pytorch() {
    let header = r#"{"b":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let file = safetensors(&scratch("bad_input_bool"), "bool", header, &[2, 0, 1]);
    assert_eq!(
        crate::common::stdout(&show(file).output().unwrap()),
        "b\ttensor([ True, False,  True])\n"
    );
}

#[test]
fn recordings_that_cannot_be_written() {
    let folder = scratch("bad_input_record");
    let record = |file: &Path| {
        let mut command = tch_parity();
        command.args(["notebook", "--record"]).arg(file);
        command
    };
    assert_refused(&mut record(&folder.join("none/run")), "No such file");
    assert_refused(&mut record(&folder), "not a regular file");
    assert_refused(&mut record(Path::new("/dev/null")), "not a regular file");
    assert_refused(&mut record(&folder.join("n".repeat(300))), "File name too long");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_recording_replaces_the_file_and_does_not_write_into_it() {
    let folder = scratch("bad_input_replace");
    let [file, old, link] = ["run", "old", "link"].map(|name| folder.join(name));
    fs::write(&file, "old").unwrap();
    fs::hard_link(&file, &old).unwrap();
    symlink(&file, &link).unwrap();
    assert!(
        tch_parity().args(["notebook", "--record"]).arg(&link).output().unwrap().status.success()
    );
    assert_eq!(fs::read_to_string(&old).unwrap(), "old");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(Trace::load(&file).is_ok());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
}

#[test]
fn a_tensor_that_cannot_be_shown_does_not_hide_the_others() {
    let header = r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[3,7]},"b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]},"c":{"dtype":"F32","shape":[],"data_offsets":[7,11]}}"#;
    let file = safetensors(&scratch("bad_input_half"), "file", header, &[0; 11]);
    let output = show(file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\ttensor(0.)\nc\ttensor(0.)\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.ends_with("file: b: PyTorch has no dtype F6_E2M3\n"), "{stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
}

#[test]
fn files_of_another_kind_are_named() {
    let folder = scratch("bad_input_foreign");
    let mut tar = vec![b'a'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    // The end of an archive that has no files.
    let zip = [&b"PK\x03\x04PK\x05\x06"[..], &[0; 12], &[4, 0, 0, 0, 0, 0]].concat();
    for (bytes, says) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"[..],
            "a Git LFS pointer",
        ),
        (b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", "such as an old PyTorch checkpoint"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"\xef\xbb\xbf\r\n  <html>", "an HTML page"),
        (br#"{"hidden_size": 768, "architectures": []}"#, "a JSON file"),
        (b"GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0", "a GGUF file"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0", "an HDF5 file"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.9.0", "an ONNX model"),
        (b"\x1f\x8b\x08\0\0\0\0\0\x02\xff", "an archive: unpack it"),
        (&tar, "an archive: unpack it"),
        (&zip, "a zip archive without a PyTorch checkpoint's data.pkl"),
        (b"", "an empty file"),
    ] {
        let file = folder.join("file");
        fs::write(&file, bytes).unwrap();
        assert_refused(&mut show(&file), "not a safetensors file but ");
        assert_refused(&mut show(&file), says);
        assert_refused(tch_parity().arg("compare").args([&file, &file]), says);
    }
}

#[test]
fn a_stderr_that_takes_nothing_changes_nothing() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = tch_parity().args(["notebook", "--steps", "0"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

/// Returns whether `bytes`, which may be damaged, load as a case. A panic fails the test.
fn loads(bytes: &[u8], file: &Path) -> bool {
    fs::write(file, bytes).unwrap();
    Replay::load(file).is_ok()
}

#[test]
fn a_case_cut_at_any_byte_of_its_header_is_refused() {
    let file = scratch("bad_input_cut").join("case");
    let whole = fs::read(data("cases/zero.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in 0..=header {
        assert!(!loads(&whole[..length], &file), "{length} bytes");
    }
    assert!(loads(&whole, &file));
}

#[test]
fn a_case_with_any_byte_of_its_header_changed_is_refused_or_read_without_a_panic() {
    let file = scratch("bad_input_fuzz").join("case");
    let whole = fs::read(data("cases/zero.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let seed = crate::common::seed();
    println!("to repeat: TCH_PARITY_SEED={seed}");
    let mut random = Random::new(&seed);
    let mut random = |below: usize| random.below(below);
    let tokens: [&[u8]; 8] =
        [b"0", b"99999999999999999999", b"-1", b"\"", b"[", b"}", b"F64", b"\xff"];
    let mut refused = 0;
    for _ in 0..4000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(3) {
            let at = random(header);
            let token = tokens[random(tokens.len())];
            match random(3) {
                0 => bytes[at] ^= 1 << random(8),
                1 => drop(bytes.splice(at..at, token.iter().copied())),
                _ => drop(bytes.splice(at..(at + token.len()).min(header), token.iter().copied())),
            }
        }
        refused += usize::from(!loads(&bytes, &file));
    }
    assert!(refused > 3000, "{refused} of 4000 refused");
}

/// A change of a tensor and its name; `None` removes the tensor.
type Change = dyn Fn(&str, Tensor) -> Option<(String, Tensor)>;

#[test]
fn cases_that_are_whole_files_but_no_cases_are_named_for_what_is_wrong() {
    let folder = scratch("bad_input_cases");
    let stored = Trace::load(data("cases/zero.safetensors")).unwrap();
    let environment = stored.environment::<Value>().unwrap().unwrap();
    let run = stored.run::<Value>().unwrap().unwrap();
    let with = |path: &str, value: Value| {
        let mut run = run.clone();
        *run.pointer_mut(path).unwrap() = value;
        run
    };
    let check = |run: Value, change: &Change, says: &str| {
        let mut trace = Trace::new();
        trace.describe(&run, &environment).unwrap();
        for name in stored.names() {
            if let Some((name, tensor)) = change(name, stored.tensor(name).unwrap()) {
                trace.push(name, &tensor).unwrap();
            }
        }
        let file = folder.join("case.safetensors");
        trace.save(&file).unwrap();
        let output = tch_parity().arg("check").arg(&file).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{says}\n{stderr}");
        assert!(stderr.contains("case.safetensors: ") && stderr.contains(says), "{says}\n{stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    };
    let same = |name: &str, tensor: Tensor| Some((name.to_owned(), tensor));
    check(with("/model", "Net".into()), &same, "the case holds no program to run. Record it again");
    let by_port = "the port of a ThreeLayerNet cannot replay it, and it holds no program: ";
    check(with("/loss", "MSELoss".into()), &same, by_port);
    check(with("/loss", "MSELoss".into()), &same, "unknown variant `MSELoss`");
    check(with("/optimizer/name", "Lion".into()), &same, "unknown optimizer \"Lion\"");
    check(with("/optimizer/name", "Adam".into()), &same, "unknown field `dampening`");
    check(with("/optimizer/lr", Value::Null), &same, "invalid type: null, expected f64");
    check(with("/optimizer/lr", (-1.).into()), &same, "Invalid learning rate: -1.0");
    let infinite = "lr is Infinity: only finite numbers are replayed";
    check(with("/optimizer/lr", "Infinity".into()), &same, infinite);
    let endless = serde_json::json!({"name": "LBFGS", "lr": 1.0, "max_iter": 1i64 << 40});
    check(
        with("/optimizer", endless),
        &same,
        "max_iter is 1099511627776: at most 10000 are replayed",
    );
    let more = |key: &str, json: Value| {
        let mut run = run.clone();
        run["optimizer"][key] = json;
        run
    };
    let groups = |json| more("groups", json);
    let one = |of: &str| serde_json::json!([{ "parameters": [of], "lr": 0.5 }]);
    check(groups(one("fc4.bias")), &same, "group 0 of the optimizer: no parameter \"fc4.bias\"");
    check(groups(one("../\u{1b}[1m")), &same, "no parameter \"../\\u{1b}[1m\"");
    let twice = serde_json::json!([{ "parameters": ["fc1.bias", "fc1.bias"] }]);
    check(groups(twice), &same, "two parameters are named fc1.bias");
    let changes = |json| more("changes", serde_json::json!([json]));
    let other = serde_json::json!({ "step": 2, "group": 1, "lr": 0.5 });
    check(changes(other), &same, "the change of group 1 in step 2: there are 1 groups");
    let negative = serde_json::json!({ "step": 2, "group": 0, "lr": -0.5 });
    check(changes(negative), &same, "in step 2: Invalid learning rate: -0.5");
    check(changes(serde_json::json!(3)), &same, "invalid type: integer `3`");
    check(with("/optimizer", serde_json::json!({"name": "SGD"})), &same, "missing field `lr`");
    check(with("/steps", 4.into()), &same, "step/4/L is missing");
    check(with("/steps", 4_000_000_000u32.into()), &same, "step/4/L is missing");
    check(with("/steps", 0.into()), &same, "step/1/L is not expected in a run of 0 steps");
    let change = |of: &'static str, how: fn(Tensor) -> Tensor| {
        move |name: &str, tensor: Tensor| {
            Some((name.to_owned(), if name == of { how(tensor) } else { tensor }))
        }
    };
    check(
        run.clone(),
        &change("grad/h3", |t| t.unsqueeze(0)),
        "grad/h3 is of shape [1, 6, 4]: [6, 4] is expected",
    );
    check(
        run.clone(),
        &change("grad/h3", |t| t.to_kind(Kind::Double)),
        "grad/h3 is F64: F32 is expected",
    );
    check(
        run.clone(),
        &change("input/x", |t| t.view(-1)),
        "input/x is of shape [18]: a matrix is needed",
    );
    check(
        run.clone(),
        &change("input/x", |t| t.to_kind(Kind::Half)),
        "input/x is F16: F32 or F64 is needed",
    );
    check(
        run.clone(),
        &|name, t| Some((name.replace("grad/z3", "grad/z4"), t)),
        "grad/z3 is missing",
    );
    check(
        run.clone(),
        &|name, t| (name != "step/3/L").then(|| (name.to_owned(), t)),
        "step/3/L is missing",
    );
}

#[test]
fn metadata_that_is_not_a_cases_is_named() {
    let bytes = fs::read(data("notebook.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let header = header.replacen(r#""__metadata__":{"#, r#""__metadata__":{"made by":"hand","#, 1);
    let folder = scratch("bad_input_metadata");
    let file = safetensors(&folder, "case.safetensors", &header, &bytes[8 + length..]);
    let says = r#"is not a case: its metadata has the key "made by", which a case does not have"#;
    assert_refused(tch_parity().arg("check").arg(&file), says);
    // `compare` accepts the same file, since it need not be a case.
    let against = data("notebook.safetensors");
    stdout(&tch_parity().arg("compare").args([file, against]).output().unwrap());
}

#[test]
fn json_that_says_the_same_in_other_ways_is_refused() {
    let bytes = fs::read(data("notebook.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let folder = scratch("bad_input_json");
    for (from, to, says) in [
        (r#"\"lr\":0.1"#, r#"\"lr\":0.2,\"lr\":0.1"#, "two entries named lr"),
        (
            r#""__metadata__":{"#,
            r#""__metadata__":{"tch-parity":"x","#,
            "two entries named tch-parity",
        ),
        (r#"\"ThreeLayerNet\""#, r#"{\"ThreeLayerNet\":null}"#, "run.model is "),
        (r#"\"cpu\""#, r#"\"cpu\",\"device\":\"cpu\""#, "two entries named device"),
    ] {
        assert!(header.contains(from), "{from}");
        let file =
            safetensors(&folder, "case", &header.replacen(from, to, 1), &bytes[8 + length..]);
        assert_refused(tch_parity().arg("check").arg(&file), says);
    }
}

#[test]
fn a_stdout_that_takes_no_more() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = tch_parity().arg("notebook").stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: stdout: No space left on device (os error 28)\n"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut show = show(data("tensor_str/tensors.safetensors"));
    let mut child = show.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take()); // closes the pipe, as `| head -0` does
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn what_could_not_be_read_again_is_not_saved() {
    let file = scratch("bad_input_unreadable_again").join("file");
    let mut trace = Trace::new();
    let zero = Tensor::from(0f32);
    let message = trace.push("__metadata__", &zero).unwrap_err().to_string();
    assert_eq!(message, "no tensor of a safetensors file can be named __metadata__");
    // Deeper than JSON is read.
    let mut deep = Value::Null;
    for _ in 0..127 {
        deep = Value::Array(vec![deep]);
    }
    trace.push("a", &zero).unwrap();
    trace.describe(&deep, &Value::Null).unwrap();
    let message = format!("{:#}", trace.save(&file).unwrap_err());
    assert!(
        message.starts_with("what is recorded of the run could not be read again"),
        "{message}"
    );
    // Names that need a header larger than safetensors reads.
    let mut trace = Trace::new();
    for i in 0..6 {
        trace.push(i.to_string().repeat(9_000_000), &zero).unwrap();
    }
    let message = format!("{:#}", trace.save(&file).unwrap_err());
    assert!(message.contains("safetensors reads 100000000 at most"), "{message}");
    assert!(!file.exists());
}
