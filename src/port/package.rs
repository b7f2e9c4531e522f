//! The files of a port: one of its own, or a crate with the test that proves it.

use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use super::flat::Variable;
use super::identifier::{is_keyword, snake};
use super::proof::Proof;
use super::rustfmt::formatted;
use super::source::Source;
use super::{Mode, Port};
use crate::torch::{libtorch_folder, libtorch_version};

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
        let sources = self.sources()?;
        let needs_call = sources.iter().any(|source| source.needs_call);
        let mut text = sources.iter().map(|source| &*source.text).collect::<Vec<_>>().join("\n");
        for (name, constant) in &self.constants {
            text = constant.without_file(text).with_context(|| format!("the constant {name}"))?;
        }
        for (name, buffer) in &self.buffers {
            let is_persistent = |of: &&Variable| of.persistent && of.name == *name;
            text = match (buffer.zeros(), self.flat.variables.iter().find(is_persistent)) {
                // A checkpoint has its values.
                (Some(zeros), Some(_)) => text.replace(&buffer.value(), &zeros),
                _ => buffer.without_file(text).with_context(|| format!("the buffer {name}"))?,
            };
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
        let sources = self.sources().with_context(|| proof.file().display().to_string())?;
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
        write("README.md", &self.readme(&name, proof)?)?;
        proof.copy_into(into)?;
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
        for Source { file, name, config, .. } in sources {
            lib += &match config {
                Some(config) => format!("pub use {file}::{{{name}, {config}}};\n"),
                None => format!("pub use {file}::{name};\n"),
            };
        }
        if needs_call {
            lib += "pub use operator::{operator, operators};\n";
        }
        let mut files = vec![("src/lib.rs".to_owned(), lib)];
        for source in sources {
            let others = sources.iter().filter(|other| other.name != source.name);
            let others = others.flat_map(|other| [Some(&other.name), other.config.as_ref()]);
            let mut others = others.flatten().map(String::as_str).collect::<Vec<_>>();
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

    fn readme(&self, name: &str, proof: &Proof) -> Result<String> {
        let model = &self.root().name;
        let library = name.replace('-', "_");
        let with = match proof {
            Proof::Case { .. } => "takes the steps of the recorded run in `case.safetensors`",
            Proof::Program(_) => "runs `model.pt2`, the program that `torch.export` made of it,",
        };
        let about = self.about_root().replace("///\n", "\n").replace("/// ", "");
        let (tch, libtorch) = (self.tch, libtorch_version()?);
        let inputs = &self.tree.bodies[self.tree.root].inputs;
        let given = inputs.iter().map(|(name, _)| format!("&{}", snake(name)));
        let forward = self.root().forward(self);
        let given = given.chain((forward == "forward_t").then(|| "false".to_owned()));
        let given = given.collect::<Vec<_>>();
        let given = given.join(", ");
        let alone = match self.mode {
            Mode::Train => {
                " **It computes as in `train()`, also within `no_grad`.** Record an evaluation in the same case, and `port` \
                 writes `forward_t(…, train)`."
            }
            _ => "",
        };
        let output = match &self.results()[..] {
            [one] => one.clone(),
            several => format!("({})", several.join(", ")),
        };
        Ok(format!(
            "# {name}\n\n`{model}` of PyTorch in Rust, with tch {tch} and libtorch {libtorch}. `tch-parity port` wrote it.\n{about}\n\
             ```rust\nuse tch::nn::VarStore;\nuse tch::{{Device, no_grad}};\n\n\
             let mut vs = VarStore::new(Device::Cpu);\nlet model = {library}::{model}::new(vs.root());\n\
             vs.load(\"model.safetensors\")?;\nlet {output} = no_grad(|| model.{forward}({given}))?;\n```\n\n\
             `forward` returns PyTorch's errors, but tch's own layers, such as `nn::Linear`, panic on a wrong shape. The \
             initial values of `new` are not PyTorch's: load a checkpoint before you train.{alone}\n\n\
             The checkpoint is a safetensors file. Python writes it, tied parameters under each of their names:\n\n\
             ```python\nstate = {{name: value.clone() for name, value in model.state_dict().items()}}\n\
             safetensors.torch.save_file(state, \"model.safetensors\")\n```\n\n\
             `cargo test` {with} and compares every result, to the bit.\n\
             `.cargo/config.toml` says where libtorch is, and `Cargo.toml` where tch-parity is: change both on another \
             machine.\n"
        ))
    }
}

/// Returns a name that cargo takes for a package.
fn package_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let mut name = name.to_lowercase().chars().map(allowed).collect::<Vec<_>>();
    // `gr__e` would not be a snake case name.
    name.dedup_by(|c, before| !c.is_alphanumeric() && !before.is_alphanumeric());
    let name = name.into_iter().collect::<String>();
    let name = name.trim_matches(['-', '_']);
    let library = name.replace('-', "_");
    let usable = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
        && !is_keyword(&library)
        && !CRATES.contains(&library.as_str());
    match name {
        "" => "model".to_owned(),
        name if usable => name.to_owned(),
        name => format!("model-{name}"),
    }
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
    let layers = ["Linear", "Conv1D", "Conv2D", "Conv3D", "Embedding", "LayerNorm"];
    let has_layer = layers.iter().any(|layer| code.contains(&format!("nn::{layer}")));
    let mut of_nn = vec!["self"];
    of_nn.extend((has_layer && code.contains(".forward(")).then_some("Module"));
    let calls_recurrent = [".seq(", ".seq_init("].iter().any(|call| code.contains(call));
    // A class of the same name is the port's own.
    let is_taken = others.contains(&"RNN") || code.contains("pub struct RNN ");
    let recurrent = if is_taken { "RNN as _" } else { "RNN" };
    of_nn.extend(calls_recurrent.then_some(recurrent));
    match (uses("nn"), &of_nn[..]) {
        (true, ["self"]) => lines += "use tch::nn;\n",
        (true, of_nn) => lines += &format!("use tch::nn::{{{}}};\n", of_nn.join(", ")),
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
        let names =
            ["my-mlp", "gen", "self", "tch-parity", "core", "2d", "Net", "größe", "a-_b", "日本"];
        let names = names.map(package_name);
        let given = [
            "my-mlp",
            "model-gen",
            "model-self",
            "model-tch-parity",
            "model-core",
            "model-2d",
            "net",
            "gr_e",
            "a-b",
            "model",
        ];
        assert_eq!(names, given);
    }
}
