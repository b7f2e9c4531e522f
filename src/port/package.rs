//! The files of a port: one of its own, or a crate with the test that proves it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use super::identifier::{is_keyword, snake};
use super::rustfmt::formatted;
use super::source::Source;
use super::{Mode, Port};
use crate::torch::libtorch_folder;

/// What the test of a ported crate compares the port with.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A recorded run.
    Case {
        /// The file of the case.
        file: PathBuf,
        /// The names of the tensors that the program takes, such as `x`.
        inputs: Vec<String>,
        /// The names of the tensors that it returns, such as `output[0]`.
        outputs: Vec<String>,
    },
    /// The program's own run, of the file that `torch.export.save` wrote.
    Program(PathBuf),
}

/// The crates that a port and its test use, and those that are always there.
const CRATES: [&str; 9] =
    ["test", "core", "std", "alloc", "proc_macro", "tch", "tch_parity", "anyhow", "parity"];

/// The function that calls what tch does not bind.
const CALL: &str = include_str!("operator.txt");

const BUILD: &str = r#"//! Lets the test find libtorch when it runs.

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
}
"#;

impl Port {
    /// Writes the model alone, as one file.
    ///
    /// # Errors
    /// Returns an error for what cannot be written in Rust, with the operator, the module and the line of Python, and
    /// if rustfmt is missing.
    pub fn single_file(&self) -> Result<String> {
        for (name, constant) in &self.constants {
            ensure!(
                constant.file.is_none(),
                "the constant {name} is too large for source: with --output it is in a file of its own"
            );
        }
        let sources = self.sources()?;
        let needs_call = sources.iter().any(|source| source.needs_call);
        let mut text = sources.iter().map(|source| &*source.text).collect::<Vec<_>>().join("\n");
        // The values of a large buffer are those that a checkpoint or the program has.
        for buffer in self.buffers.values() {
            if let Some(zeros) = buffer.zeros() {
                text = text.replace(&buffer.value(), &zeros);
            }
        }
        if needs_call {
            text += &format!("\n{CALL}");
        }
        let lints = lints(sources.iter());
        formatted(&format!("{lints}{}{text}", imports(&text, &[])), Path::new("."))
    }

    /// Writes a crate into a new folder: the model, the test that proves it, and what they need.
    ///
    /// # Errors
    /// Returns the errors of [`single_file`](Self::single_file), and an error if the folder is there already or cannot
    /// be written. Nothing is left of it then.
    pub fn write_crate(&self, folder: &Path, proof: &Proof) -> Result<()> {
        let shown = folder.display();
        ensure!(!folder.exists(), "{shown} is there already: name a new folder, or move it away");
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = package_name(name.with_context(|| format!("{shown} has no name in UTF-8"))?);
        let parent = match folder.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        ensure!(parent.is_dir(), "there is no folder {}", parent.display());
        let unfinished = TempDir::with_prefix_in(".tch-parity.", parent);
        // Its own message names a folder that nobody knows.
        let unfinished = unfinished
            .map_err(|err| anyhow!("cannot write into {}: {}", parent.display(), err.kind()))?;
        let into = unfinished.path();
        let write = |path: &str, text: &str| {
            let path = into.join(path);
            fs::create_dir_all(path.parent().unwrap_or(into))?;
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        let (Proof::Case { file, .. } | Proof::Program(file)) = proof;
        let sources = self.sources().with_context(|| file.display().to_string())?;
        let needs_call = sources.iter().any(|source| source.needs_call);
        for (path, text) in self.source_files(&sources, needs_call) {
            write(&path, &formatted(&text, into)?)?;
        }
        let is_read = |file: &str| {
            let read = format!("include_bytes!({file:?})");
            sources.iter().any(|source| source.text.contains(&read))
        };
        let constants = self.constants.values().chain(self.buffers.values());
        let files = constants.filter_map(|constant| constant.file.as_ref());
        for (file, bytes) in files.filter(|(file, _)| is_read(file)) {
            let path = into.join("src").join(file);
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        }
        write("tests/parity.rs", &formatted(&self.test(&name, proof)?, into)?)?;
        write("build.rs", BUILD)?;
        write("Cargo.toml", &self.manifest(&name, needs_call))?;
        write(".gitignore", "/target\n")?;
        let libtorch = env::var("LIBTORCH").ok().filter(|path| Path::new(path).is_absolute());
        let libtorch = match libtorch {
            Some(libtorch) => libtorch,
            None => libtorch_folder()?.parent().unwrap_or(Path::new("/")).display().to_string(),
        };
        // Cargo unites it with the configuration of the folders above, if that is a table as well.
        let config = format!("[env]\nLIBTORCH = {{ value = {libtorch:?}, relative = false }}\n");
        write(".cargo/config.toml", &config)?;
        write("README.md", &self.readme(&name, proof))?;
        let to = into.join(file_name(proof));
        fs::copy(file, to).with_context(|| file.display().to_string())?;
        let finished = unfinished.keep();
        fs::rename(&finished, folder).with_context(|| {
            let _ = fs::remove_dir_all(&finished);
            format!("cannot write {shown}")
        })
    }

    /// Lists the files of `src`: one, or one for each class.
    fn source_files(&self, sources: &[Source], needs_call: bool) -> Vec<(String, String)> {
        let model = &self.root().name;
        let about =
            format!("//! `{model}`, ported from the program that `torch.export` made of it.\n\n");
        if let [one] = sources {
            let mut text = one.text.clone();
            if needs_call {
                text += &format!("\n{CALL}");
            }
            let (lints, imports) = (lints([one].into_iter()), imports(&text, &[]));
            return vec![("src/lib.rs".to_owned(), format!("{about}{lints}{imports}{text}"))];
        }
        let mut lib = about + lints(sources.iter());
        for Source { file, .. } in sources {
            lib += &format!("mod {file};\n");
        }
        if needs_call {
            lib += "mod operator;\n";
        }
        lib.push('\n');
        for Source { file, name, .. } in sources {
            lib += &format!("pub use {file}::{name};\n");
        }
        if needs_call {
            lib += "pub use operator::{operator, operators};\n";
        }
        let mut files = vec![("src/lib.rs".to_owned(), lib)];
        let names = sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>();
        for source in sources {
            let others = names.iter().copied().filter(|name| *name != source.name);
            let mut others = others.collect::<Vec<_>>();
            if needs_call {
                others.extend(["operator", "operators"]);
            }
            let imports = imports(&source.text, &others);
            files.push((format!("src/{}.rs", source.file), format!("{imports}{}", source.text)));
        }
        if needs_call {
            let text = format!("use tch::{{TchError, Tensor}};\nuse tch_parity::Value;\n\n{CALL}");
            files.push(("src/operator.rs".to_owned(), text));
        }
        files
    }

    fn manifest(&self, name: &str, needs_call: bool) -> String {
        let tch = self.tch;
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let parity = if here.join("Cargo.toml").is_file() {
            let why =
                "# tch-parity is not in a registry of crates: this is where its source was built.";
            format!("{why}\ntch-parity = {{ path = {:?} }}", here.display().to_string())
        } else {
            format!("tch-parity = {:?}", env!("CARGO_PKG_VERSION"))
        };
        let (own, of_test) = if needs_call {
            (format!("tch = \"{tch}\"\n{parity}\n"), "anyhow = \"1\"\n".to_owned())
        } else {
            (format!("tch = \"{tch}\"\n"), format!("anyhow = \"1\"\n{parity}\n"))
        };
        format!(
            "[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{own}\n\
             [dev-dependencies]\n{of_test}"
        )
    }

    fn readme(&self, name: &str, proof: &Proof) -> String {
        let model = &self.root().name;
        let with = match proof {
            Proof::Case { .. } => "takes the steps of the recorded run in `case.safetensors`",
            Proof::Program(_) => "runs `model.pt2`, the program that `torch.export` made of it,",
        };
        format!(
            "# {name}\n\n`{model}` of PyTorch in Rust, with tch {}. `tch-parity port` wrote it.\n\n\
             ```console\n$ cargo test\n```\n\nThe test {with} and compares every result, to the bit. `.cargo/config.toml`\n\
             says where libtorch is, which has to be of the version that tch is made for.\n\n\
             `VarStore::load` reads a checkpoint: the parameters have PyTorch's names.\n",
            self.tch
        )
    }

    /// Writes the test.
    fn test(&self, name: &str, proof: &Proof) -> Result<String> {
        let model = &self.root().name;
        let library = name.replace('-', "_");
        let body = &self.tree.bodies[self.tree.bodies.len() - 1];
        let places =
            body.inputs.iter().map(|(_, id)| self.flat.inputs.iter().position(|i| i == id));
        let places =
            places.collect::<Option<Vec<_>>>().context("an input that is not the user's")?;
        let mut results = self.results();
        if let Proof::Case { outputs, .. } = proof {
            // An output that the case does not have is nothing to the test.
            for (result, _) in results.iter_mut().zip(outputs).filter(|(_, name)| name.is_empty()) {
                "_".clone_into(result);
            }
        }
        let (outputs, returned) = match &results[..] {
            [one] => (one.clone(), vec![one.clone()]),
            several => (format!("({})", several.join(", ")), several.to_vec()),
        };
        Ok(match proof {
            Proof::Case { inputs, outputs: names, .. } => {
                let arguments = places.iter().map(|at| {
                    let name =
                        inputs.get(*at).context("the case has fewer inputs than the program")?;
                    Ok(format!("&inputs[{name:?}]"))
                });
                let arguments = arguments.collect::<Result<Vec<_>>>()?.join(", ");
                if names.len() != returned.len() {
                    bail!(
                        "the case has {} outputs, and the program {}",
                        names.len(),
                        returned.len()
                    );
                }
                let (replay, given, forward) = match self.mode {
                    Mode::Both => ("replay_port_t", "inputs, train", self.root().forward(self)),
                    _ => ("replay_port", "inputs", "forward"),
                };
                let mode = if forward == "forward_t" { ", train" } else { "" };
                let given =
                    if mode.is_empty() { given.replace(" train", " _") } else { given.to_owned() };
                let pairs = names.iter().zip(&returned).filter(|(name, _)| !name.is_empty());
                let pairs = pairs.map(|(name, result)| format!("({name:?}, {result})"));
                let pairs = pairs.collect::<Vec<_>>().join(", ");
                format!(
                    "//! The port takes the steps of the recorded run, and every result has the same bits.\n\n\
                     use anyhow::Result;\nuse {library}::{model};\nuse tch::Device;\nuse tch::nn::VarStore;\n\
                     use tch_parity::{{Case, assert_parity, {replay}}};\n\n\
                     #[test]\nfn is_the_same_computation() -> Result<()> {{\n\
                     let case = Case::load(\"case.safetensors\")?;\n\
                     // Starts this test again, with the recording's numerics.\n\
                     case.environment.numerics.restart_with()?;\n\
                     let vs = VarStore::new(Device::Cpu);\n\
                     let model = {model}::new(vs.root());\n\
                     let trace = {replay}(&case, &vs, |{given}| {{\n\
                     let {outputs} = model.{forward}({arguments}{mode})?;\n\
                     Ok(vec![{pairs}])\n}})?;\n\
                     assert_parity(&trace, &case)?;\nOk(())\n}}\n"
                )
            }
            Proof::Program(_) => {
                let given = self.examples()?;
                let arguments = places.iter().map(|at| format!("&inputs[{at}]"));
                let arguments = arguments.collect::<Vec<_>>().join(", ");
                let returned = returned.join(", ");
                format!(
                    "//! The port computes what the program does, and every result has the same bits.\n\n\
                     use anyhow::Result;\nuse {library}::{model};\nuse tch::nn::VarStore;\n\
                     use tch::{{Device, Kind, Tensor}};\n\
                     use tch_parity::{{Numerics, Program, assert_same_as_program}};\n\n\
                     #[test]\nfn is_the_same_computation() -> Result<()> {{\n\
                     // Starts this test again, with numerics that are the same on every machine.\n\
                     Numerics::Portable.restart_with()?;\n\
                     let program = Program::load(\"model.pt2\")?;\n\
                     let vs = VarStore::new(Device::Cpu);\n\
                     let model = {model}::new(vs.root());\n\
                     let inputs = [{given}];\n\
                     assert_same_as_program(&program, &vs, &inputs, |inputs| {{\n\
                     let {outputs} = model.forward({arguments})?;\n\
                     Ok(vec![{returned}])\n}})?;\nOk(())\n}}\n"
                )
            }
        })
    }

    /// Names what `forward` returns.
    fn results(&self) -> Vec<String> {
        let count = self.flat.outputs.len();
        let names = &self.flat.output_names;
        if names.len() == count {
            return names.iter().map(|name| snake(name)).collect();
        }
        match count {
            1 => vec!["output".to_owned()],
            _ => (0..count).map(|at| format!("output_{at}")).collect(),
        }
    }
}

/// The name of the case or the program in the crate.
fn file_name(proof: &Proof) -> &'static str {
    match proof {
        Proof::Case { .. } => "case.safetensors",
        Proof::Program(_) => "model.pt2",
    }
}

/// Returns a name that cargo takes for a package.
fn package_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name = name.to_lowercase().chars().map(allowed).collect::<String>();
    let name = name.trim_matches(['-', '_']);
    let library = name.replace('-', "_");
    let usable = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
        && !is_keyword(&library)
        && !CRATES.contains(&library.as_str());
    if usable { name.to_owned() } else { format!("model-{name}") }
}

/// Lets names be of other letters than those of ASCII, where a source has such, without a warning that they look like
/// these.
fn lints<'a>(mut sources: impl Iterator<Item = &'a Source>) -> &'static str {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    match sources.any(|source| source.text.lines().filter(is_code).any(|line| !line.is_ascii())) {
        true => "#![allow(mixed_script_confusables, confusable_idents, uncommon_codepoints)]\n\n",
        false => "",
    }
}

/// Writes the `use` lines of what a source names.
fn imports(text: &str, others: &[&str]) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect::<Vec<_>>();
    let uses = |word: &str| words.contains(&word);
    let mut lines = String::new();
    let of_nn = ["Linear", "Conv1D", "Conv2D", "Conv3D", "Embedding", "LayerNorm"];
    let has_layer = of_nn.iter().any(|layer| code.contains(&format!("nn::{layer}")));
    match (uses("nn"), has_layer && code.contains(".forward(")) {
        (true, true) => lines += "use tch::nn::{self, Module};\n",
        (true, false) => lines += "use tch::nn;\n",
        _ => {}
    }
    let from_tch = ["Device", "Kind", "TchError", "Tensor"].into_iter().filter(|word| uses(word));
    let from_tch = from_tch.filter(|word| *word != "Device" || code.contains("Device::"));
    let from_tch = from_tch.collect::<Vec<_>>();
    if !from_tch.is_empty() {
        lines += &format!("use tch::{{{}}};\n", from_tch.join(", "));
    }
    if uses("Value") {
        lines += "use tch_parity::Value;\n";
    }
    // `nn::Embedding` is tch's, and no class of that name.
    let own = code.split("nn::").enumerate().map(|(at, part)| match at {
        0 => part,
        _ => part.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
    });
    let own = own.collect::<Vec<_>>().join(" ");
    let words = own.split(|c: char| !c.is_alphanumeric() && c != '_').collect::<Vec<_>>();
    let others = others.iter().filter(|other| words.contains(other)).copied().collect::<Vec<_>>();
    if !others.is_empty() {
        lines += &format!("\nuse crate::{{{}}};\n", others.join(", "));
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_package_is_called_like_a_keyword_or_a_crate() {
        let names = ["my-mlp", "gen", "self", "tch-parity", "core", "2d", "Net"].map(package_name);
        let given = [
            "my-mlp",
            "model-gen",
            "model-self",
            "model-tch-parity",
            "model-core",
            "model-2d",
            "net",
        ];
        assert_eq!(names, given);
    }
}
