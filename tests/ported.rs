//! `port`: the ports of models that PyTorch records now are built, and their tests prove them to the bit.

#![cfg(feature = "libtorch")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{ROOT, blocks, pytorch, scratch, share_build, stdout, tch_parity};
use serde_json::Value as Json;

fn port(args: &[&str]) -> Output {
    tch_parity().arg("port").args(args).output().unwrap()
}

/// Returns what cargo writes in a workspace of ports.
fn cargo(workspace: &Path, args: &[&str]) -> (bool, String) {
    let mut cargo = Command::new("cargo");
    cargo.args(args).current_dir(workspace).env_remove("RUST_BACKTRACE");
    let output = cargo.output().unwrap();
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    (output.status.success(), text)
}

/// Returns how many lines of code a source has: neither empty ones nor comments.
fn lines_of_code(source: &str) -> usize {
    let lines = source.lines().map(str::trim_start);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// A test of a port that loads what `safetensors.torch.save_file` wrote of a `state_dict()`.
const CHECKPOINT: &str = r#"use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[test]
fn a_checkpoint_of_pytorch_is_loaded() {
    let mut vs = VarStore::new(Device::Cpu);
    let model = buffers::Buffers::new(vs.root());
    let pe = model.causal.pe.copy();
    vs.load("../../checkpoints/buffers.safetensors").unwrap();
    assert!(model.causal.pe.equal(&pe));
    let x = Tensor::ones([2, 6, 4], (Kind::Float, Device::Cpu));
    let y = model.forward(&x).unwrap();
    assert!(y.isfinite().all().equal(&Tensor::from(true)));
}
"#;

/// The same for one of tied parameters, which the checkpoint has under each of their names.
const TIED_CHECKPOINT: &str = r#"use language::Language;
use tch::Device;
use tch::nn::VarStore;

#[test]
fn a_checkpoint_of_pytorch_is_loaded() {
    let mut vs = VarStore::new(Device::Cpu);
    let _model = Language::new(vs.root());
    vs.load("../../checkpoints/language.safetensors").unwrap();
}
"#;

/// Records and exports the models of `tests/ported.py`, and lists all files to port.
fn recorded(folder: &Path) -> Vec<PathBuf> {
    pytorch("tests/ported.py", &[folder.to_str().unwrap()]);
    let examples = ["mlp", "convnet", "encoder", "llama"];
    let examples =
        examples.map(|name| Path::new(ROOT).join(format!("examples/{name}.safetensors")));
    let recorded = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files = recorded.filter(|path| path.is_file()).chain(examples).collect::<Vec<_>>();
    files.sort();
    files
}

#[test]
fn ports_are_built_without_a_warning_and_proved_to_the_bit() {
    let folder = scratch("ported");
    let files = recorded(&folder);
    assert_eq!(files.len(), 30, "{files:?}");
    share_build(&folder);
    let workspace = folder.join("workspace");
    fs::create_dir(&workspace).unwrap();
    let mut members = Vec::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let into = workspace.join(name);
        stdout(&port(&[file.to_str().unwrap(), "--output", into.to_str().unwrap()]));
        members.push(format!("{name:?}"));
    }
    let members = members.join(", ");
    let manifest = format!("[workspace]\nresolver = \"3\"\nmembers = [{members}]\n");
    fs::write(workspace.join("Cargo.toml"), manifest).unwrap();
    // The lock file pins the versions that are downloaded already.
    fs::copy(Path::new(ROOT).join("Cargo.lock"), workspace.join("Cargo.lock")).unwrap();

    fs::write(workspace.join("buffers/tests/checkpoint.rs"), CHECKPOINT).unwrap();
    fs::write(workspace.join("language/tests/checkpoint.rs"), TIED_CHECKPOINT).unwrap();

    let (passed, text) = cargo(&workspace, &["fmt", "--check"]);
    assert!(passed, "{text}");
    let (passed, text) = cargo(&workspace, &["test", "--tests", "--no-fail-fast"]);
    assert!(passed && !text.contains("warning"), "{text}");
    let proofs = text.matches("test is_the_same_computation ... ok").count();
    assert_eq!(proofs, files.len(), "{text}");
    let loaded = text.matches("test a_checkpoint_of_pytorch_is_loaded ... ok").count();
    assert_eq!(loaded, 2, "{text}");

    // A function that a forward calls is a function, and its lines have names for values as well.
    let block = fs::read_to_string(workspace.join("language/src/block.rs")).unwrap();
    assert!(block.contains("let y = attend(&k, &q, mask, &v)?;"), "{block}");
    let attend = fs::read_to_string(workspace.join("language/src/attend.rs")).unwrap();
    assert!(attend.contains("pub fn attend(k: &Tensor, q: &Tensor, mask: &Tensor"), "{attend}");
    assert!(attend.contains("let scores = "), "{attend}");
    // A module that some of the blocks have is an `Option` of all.
    let residual = fs::read_to_string(workspace.join("images/src/residual.rs")).unwrap();
    assert!(residual.contains("pub down: Option<nn::Conv2D>,"), "{residual}");
    let images = fs::read_to_string(workspace.join("images/src/images.rs")).unwrap();
    assert!(images.contains("pub layers: Vec<Residual>,"), "{images}");

    // Lists of any length are a `Vec`, whatever their modules are called, and lists of lists one of `Vec`s.
    let source = |path: &str| fs::read_to_string(workspace.join(path)).unwrap();
    let classes = source("classes/src/classes.rs");
    for field in [
        "stages: Vec<Stage>",
        "shifted: Vec<Unit>",
        "layer1: Vec<Widen>",
        "layer2: Vec<Widen>",
        "nested: Vec<Vec<Widen>>",
    ] {
        assert!(classes.contains(&format!("pub {field},")), "{classes}");
    }
    assert!(classes.contains("for widens in &self.nested {"), "{classes}");
    let stage = source("classes/src/stage.rs");
    assert!(stage.contains("(0..probabilities_2.len())"), "{stage}");
    let growing = source("classes/src/growing.rs");
    let layers = "Joined::new(&p / format!(\"layer{}\", i + 1), in_features + 2 * i)";
    assert!(growing.contains(layers), "{growing}");
    let head = source("classes/src/head.rs");
    assert!(head.contains("(0..9).map(|i| Widen::new(&p / (i + 1), 4, 4)).collect()"), "{head}");
    let chain = source("chain/src/net.rs");
    assert!(chain.contains("(0..30).map(|i| Widen::new(&p / i)).collect()"), "{chain}");
    assert!(growing.contains("num_layers: i64"), "{growing}");
    // What some modules do and others leave out is an `Option` or a condition, and dropout of nothing has a number.
    let unit = source("classes-in-both-modes/src/unit.rs");
    for part in [
        "pub drop_path: Option<DropPath>,",
        "pub scale: Option<Tensor>,",
        "let x = if self.has_roll {",
        "f_dropout(self.probability, train)?",
    ] {
        assert!(unit.contains(part), "{unit}");
    }
    // Many numbers have names.
    let numbers = source("classes/src/numbers.rs");
    assert!(numbers.contains("pub fn new(config: NumbersConfig) -> Numbers {"), "{numbers}");

    // One of which another layer reads a weight is none.
    let tied = fs::read_to_string(workspace.join("tied-maybe/src/tied_maybe.rs")).unwrap();
    assert!(tied.contains("x.f_linear(&self.blocks_1.down.ws, None::<&Tensor>)"), "{tied}");

    // It is little longer than what a person writes; both have the model and its proof.
    let by_hand = fs::read_to_string(Path::new(ROOT).join("examples/llama.rs")).unwrap();
    let sources = fs::read_dir(workspace.join("llama/src")).unwrap();
    let sources = sources.map(|file| file.unwrap().path());
    let sources = sources.chain([workspace.join("llama/tests/parity.rs")]);
    let sources = sources.map(|file| fs::read_to_string(file).unwrap()).collect::<String>();
    let (written, by_hand) = (lines_of_code(&sources), lines_of_code(&by_hand));
    println!("lines of code of a Llama: {written} written by port, {by_hand} by hand");
    assert!(2 * written <= 3 * by_hand, "{written} lines, and by hand {by_hand}");

    // Recurrent layers are tch's, with Python's names for what they return.
    let states = fs::read_to_string(workspace.join("states/src/states.rs")).unwrap();
    for line in [
        "use tch::nn::{self, RNN};",
        "let (_, state) = self.encoder.seq(x);",
        "let (decoded, nn::LSTMState((hidden, cell))) = self.decoder.seq_init(y, &state);",
        "let (again, nn::LSTMState((_, doubled)))",
        "&nn::LSTMState((hidden.shallow_clone(), hidden.f_mul_scalar(2)?))",
        "z = layer.seq_init(&z, &layer.zero_state(z.size()[1])).0;",
        "let (z, twice) = self.halves.forward(",
        "self.last.seq_init(&z, &nn::GRUState(first)).0",
        "let (best, _) = z.f_topk(",
    ] {
        assert!(states.contains(line), "{line} is not in {states}");
    }
    let modes = fs::read_to_string(workspace.join("recurrent-modes/src/modes.rs")).unwrap();
    for field in ["pub lstm: nn::LSTM,", "pub gru: nn::GRU,", "pub drops: GRU,"] {
        assert!(modes.contains(field), "{modes}");
    }
    let rnn = fs::read_to_string(workspace.join("rnn/src/rnn.rs")).unwrap();
    assert!(rnn.contains("RNN as _") && rnn.contains("let (one, last) = self.one"), "{rnn}");
    // So have the lines of PyTorch's attention names, but they are not shown.
    let attention = workspace.join("attention/src/multihead_attention.rs");
    let attention = fs::read_to_string(attention).unwrap();
    for line in ["let q_scaled = q.f_mul_scalar(", "let attn_output_weights = attn_mask.f_baddbmm("]
    {
        assert!(attention.contains(line), "{line} is not in {attention}");
    }
    let is_comment = |line: &str| line.trim_start().starts_with("// ");
    assert!(!attention.lines().any(is_comment), "{attention}");
    for file in &files {
        let sources = workspace.join(file.file_stem().unwrap()).join("src");
        for source in fs::read_dir(sources).unwrap() {
            let path = source.unwrap().path();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            let text = if is_rust { fs::read_to_string(&path).unwrap() } else { String::new() };
            assert!(!text.contains("getitem"), "{text}");
        }
    }

    // What cannot be written is refused with its place.
    for (name, says) in [
        ("cond.pt2", ["torch.ops.higher_order.cond", "module 0", "in the line"]),
        ("custom.pt2", ["torch.ops.mine.twice.default", "module 0", "twice(x) + 1"]),
        ("results.safetensors", ["returns something else in train()", "in eval()", "of their own"]),
        (
            "outside.safetensors",
            ["../checkpoints/initial", "beside the case", "folder of the case"],
        ),
        ("sizes.safetensors", ["one call of the model each", "of one size", "dynamic_shapes="]),
    ] {
        let file = folder.join("refused").join(name);
        let into = folder.join(format!("port-of-{name}"));
        let output = port(&[file.to_str().unwrap(), "--output", into.to_str().unwrap()]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(says.iter().all(|words| stderr.contains(words)), "{stderr}");
        assert!(!into.exists(), "something is left of {name}");
    }

    // What depends on the mode is told of it, and nothing else.
    let source = |path: &str| fs::read_to_string(workspace.join(path)).unwrap();
    let both = source("both-modes/src/both_modes.rs");
    assert!(both.contains("pub fn forward_t(&self, x: &Tensor, train: bool)"), "{both}");
    assert!(both.contains("x = cell.forward_t(&x, train)?;"), "{both}");
    assert!(both.contains("(if train { 0.5 } else { 0.8 })?"), "{both}");
    let constants = source("mode-constants/src/lib.rs");
    assert_eq!(constants.matches("if train {").count(), 1, "{constants}");
    let gate = source("both-modes/src/gate.rs");
    assert!(gate.contains("pub fn forward(&self, x: &Tensor)"), "{gate}");
    assert!(
        source("both-modes/tests/parity.rs").contains("model.forward_t(&inputs[\"x\"], train)")
    );

    // Each module reads the sizes of its own tensors.
    let sizes = source("sizes/src/sizes.rs");
    assert!(sizes.contains("pub layers: Vec<Scaled>,"), "{sizes}");
    let scaled = source("sizes/src/scaled.rs");
    assert!(scaled.contains("pub fn forward(&self, x: &Tensor)"), "{scaled}");
    assert!(scaled.contains("let (b, t, _) = x.size3()?;"), "{scaled}");
    assert!(scaled.contains("f_mul_scalar(n + 1)?"), "{scaled}");
    // Names that cargo or the test has taken.
    let names = source("names/src/lib.rs");
    assert!(names.contains("pub use lib_module::Lib;"), "{names}");
    assert!(names.contains("pub use main_module::Main;"), "{names}");
    assert!(source("names/src/case_module.rs").contains("pub _p: Tensor,"));

    // Each statement of a line names its own value, and no list or dict names one of its parts.
    let written = source("written/src/lib.rs");
    for line in [
        "pub fn forward(&self, _x: &Tensor, x: &Tensor)",
        "let z = self.encoder.forward(_x);",
        "let y = self.decoder.forward(x);",
        "pub encoder: nn::Linear,",
        "pub forward_: nn::Linear,",
        "Tensor::from_slice(&[2i64, 0, 1])",
        "pub größe: Tensor,",
        ".f_clamp(-2, 2)?",
        ".f_fill_(0.5)?",
        ".f_copy_(&slice)?;",
        ".f_var(true)?",
        "let h = self.encoder.forward(&",
        "-1e9",
    ] {
        assert!(written.contains(line), "{line} is not in {written}");
    }
    for text in ["let parts", "f_dropout", "f_mul_scalar(1)", "operator(", "pub alias", "# "] {
        assert!(!written.contains(text), "{text} is in {written}");
    }

    // What no checkpoint has is no variable, and what it has has PyTorch's values.
    let causal = source("buffers/src/causal.rs");
    assert!(causal.contains("seen: Tensor::from_slice(&[1f32]).view([]).to_device"), "{causal}");
    // What one operator makes is neither a list of numbers nor a file.
    assert!(causal.contains("positions: Tensor::arange(100, (Kind::Int64"), "{causal}");
    assert!(causal.contains("f64::NEG_INFINITY") && causal.contains(".f_triu(1)?"), "{causal}");
    assert!(causal.contains(r#"bias: p.add("#) && causal.contains(".bin\")"), "{causal}");
    let rotary = source("buffers/src/rotary.rs");
    assert!(rotary.contains("Kind::ComplexFloat") && !rotary.contains("unread"), "{rotary}");
    let norm = source("buffers/src/batch_norm1d.rs");
    assert!(norm.contains("p.zeros_no_train(\"running_mean\""), "{norm}");
    let buffers = source("buffers/src/buffers.rs");
    assert!(buffers.contains(".f_view_as_complex()?,"), "{buffers}");
    assert!(buffers.contains(".f_elu()?") && buffers.contains(".f_softplus()"), "{buffers}");

    // Dropout of `eval()` is nothing, and what a caller does without gradients does not say so again.
    let without = source("no-parameters/src/lib.rs");
    assert!(!without.contains("dropout"), "{without}");
    assert!(source("distilled/src/distilled.rs").contains("no_grad_guard"));
    let teacher = source("distilled/src/teacher.rs");
    assert!(!teacher.contains("no_grad_guard"), "{teacher}");

    // A port with a mistake does not pass, and is told where it is.
    let page = fs::read_to_string(Path::new(ROOT).join("docs/port.md")).unwrap();
    for (package, path, right, wrong, says) in [
        ("mlp", "lib.rs", r#"f_gelu("none")"#, r#"f_gelu("tanh")"#, "look at aten::gelu in gelu"),
        (
            "both-modes",
            "batch_norm1d.rs",
            "            train,",
            "            !train,",
            "look at aten::batch_norm in cells.0.norm",
        ),
        (
            "both-modes",
            "cell.rs",
            "let x = if train {",
            "let x = if !train {",
            "look at aten::randn_like",
        ),
        (
            "both-modes",
            "both_modes.rs",
            "let y = if train {",
            "let y = if !train {",
            "forward/output",
        ),
        (
            "both-modes",
            "both_modes.rs",
            "else { 0.8 }",
            "else { 0.7 }",
            "step/3/forward/output is the first to differ; look at aten::mul",
        ),
    ] {
        let source = workspace.join(package).join("src").join(path);
        let text = fs::read_to_string(&source).unwrap();
        assert!(text.contains(right), "{text}");
        fs::write(&source, text.replace(right, wrong)).unwrap();
        let (passed, said) = cargo(&workspace, &["test", "--tests", "-p", package]);
        assert!(!passed && said.contains(says), "{said}");
        if package == "mlp" {
            let line = said.lines().find(|line| line.contains(says)).unwrap();
            assert!(page.contains(line), "docs/port.md does not show {line}");
        }
        fs::write(&source, text).unwrap();
    }

    // The page shows what is written for the notebook's net.
    let net = folder.join("three-layer-net.safetensors");
    let written = stdout(&port(&[net.to_str().unwrap(), "--single-file"]));
    let shown = blocks(&page).into_iter().map(|(_, _, block)| block);
    let shown =
        shown.filter(|block| block.contains("pub struct ThreeLayerNet")).collect::<Vec<_>>();
    assert_eq!(shown, [written], "docs/port.md");
}

#[test]
fn the_table_of_methods_is_that_of_the_tch_in_use() {
    let mut cargo = Command::new("cargo");
    let metadata = cargo.args(["metadata", "--format-version", "1"]).current_dir(ROOT).output();
    let metadata = serde_json::from_slice::<Json>(&metadata.unwrap().stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let tch = packages.iter().find(|package| package["name"] == "tch").unwrap();
    let source = Path::new(tch["manifest_path"].as_str().unwrap()).parent().unwrap();
    let version = tch["version"].as_str().unwrap().rsplit_once('.').unwrap().0;
    let made = scratch("methods").join("made.tsv");
    pytorch("scripts/methods.py", &[source.to_str().unwrap(), made.to_str().unwrap()]);
    let stored = Path::new(ROOT).join(format!("src/port/methods-{version}.tsv"));
    let [made, stored] = [made, stored].map(|path| fs::read_to_string(path).unwrap());
    assert!(made.lines().count() > 1000);
    assert!(made == stored, "call scripts/methods.py for tch {version}");
}

/// Changes the JSON of a program in a case.
fn edited(from: &Path, to: &Path, edit: impl Fn(&mut Json)) {
    let case = tch_parity::Trace::load(from).unwrap();
    let bytes = case.get("program/graph").unwrap().data().to_vec();
    let mut json = serde_json::from_slice::<Json>(&bytes).unwrap();
    edit(&mut json);
    let changed = serde_json::to_vec(&json).unwrap();
    let mut file = fs::read(from).unwrap();
    // The header says where each tensor is, so the program keeps its length.
    assert!(changed.len() <= bytes.len());
    let padded = [changed.clone(), vec![b' '; bytes.len() - changed.len()]].concat();
    let at = file.windows(bytes.len()).position(|window| window == bytes).unwrap();
    file[at..at + bytes.len()].copy_from_slice(&padded);
    fs::write(to, file).unwrap();
}

#[test]
fn what_cannot_be_written_is_named_and_leaves_nothing() {
    let folder = scratch("not-ported");
    let mlp = Path::new(ROOT).join("examples/mlp.safetensors");
    let changed = folder.join("changed.safetensors");
    let into = folder.join("port");
    edited(&mlp, &changed, |json| {
        let nodes = json["graph_module"]["graph"]["nodes"].as_array_mut().unwrap();
        let gelu = nodes.iter_mut().find(|node| node["target"] == "torch.ops.aten.gelu.default");
        gelu.unwrap()["target"] = "torch.ops.mine.gelu.default".into();
    });
    let refused = |args: &[&str], says: &[&str]| {
        let output = port(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(says.iter().all(|words| stderr.contains(words)), "{stderr}");
    };
    let [changed, into] = [&changed, &into].map(|path| path.to_str().unwrap());
    refused(&[changed, "--output", into], &["torch.ops.mine.gelu.default"]);
    let mlp = mlp.to_str().unwrap();
    refused(&[mlp, "--output", folder.to_str().unwrap()], &["is there already"]);
    refused(&[mlp, "--output", "/nonexistent/port"], &["no folder /nonexistent"]);
    refused(&["README.md", "--output", into], &["README.md"]);
    refused(&[mlp], &["--output"]);
    let mut left = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(left.next().unwrap(), "changed.safetensors");
    assert!(left.next().is_none(), "something is left");
}
