//! The test that proves a port, and what it compares the port with.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::identifier::snake;
use super::{Mode, Port};

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
        /// The checkpoint that has its initial values, if they are not in the file: its name from there on.
        checkpoint: Option<String>,
    },
    /// The program's own run, of the file that `torch.export.save` wrote.
    Program(PathBuf),
}

impl Proof {
    /// Returns the file of the case or of the program.
    pub(super) fn file(&self) -> &Path {
        let (Proof::Case { file, .. } | Proof::Program(file)) = self;
        file
    }

    /// Copies the file into a crate, and the checkpoint of a case beside it, under the name that the case has for it.
    ///
    /// # Errors
    /// Returns an error if a file cannot be copied, or the checkpoint is outside of the case's folder.
    pub(super) fn copy_into(&self, folder: &Path) -> Result<()> {
        let copy = |from: &Path, to: &Path| {
            fs::copy(from, to).map(drop).with_context(|| from.display().to_string())
        };
        let own = match self {
            Proof::Case { .. } => "case.safetensors",
            Proof::Program(_) => "model.pt2",
        };
        if let Proof::Case { file, checkpoint: Some(name), .. } = self {
            let is_within =
                Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            ensure!(
                is_within && name != own,
                "{}: its initial values are in the checkpoint {name}, which cannot be copied beside the case in the \
                 crate: record with a checkpoint in the folder of the case",
                file.display()
            );
            let to = folder.join(name);
            fs::create_dir_all(to.parent().unwrap_or(folder))?;
            copy(&file.with_file_name("").join(name), &to)?;
        }
        copy(self.file(), &folder.join(own))
    }
}

impl Port {
    /// Writes the test.
    pub(super) fn test(&self, name: &str, proof: &Proof) -> Result<String> {
        let model = &self.root().name;
        let library = name.replace('-', "_");
        let body = &self.tree.bodies[self.tree.root];
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
    pub(super) fn results(&self) -> Vec<String> {
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
