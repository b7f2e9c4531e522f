//! A recorded case, and how it is run again: by the port of the notebook, or by the program that it holds.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use tch::Device;
use tch_parity::{Case, Comparison, Edge, ProgramReplay, Replay, Trace, dataflow};

/// The model that the notebook trains.
const NOTEBOOK: &str = "ThreeLayerNet";

const NOT_BY_PORT: &str = "the port of a ThreeLayerNet cannot replay it, and it holds no program";

/// A case, and how it is run again.
pub(super) enum Recorded {
    /// By the port of the notebook.
    Notebook(Replay),
    /// By the program that the case holds.
    Program(ProgramReplay),
}

impl Recorded {
    pub(super) fn of(case: Case, file: &Path, by_program: bool) -> Result<Recorded> {
        let run = case.trace.run::<Map<String, Value>>().ok().flatten().unwrap_or_default();
        // What says no model in words is refused by the port, which says why.
        let model = run.get("model").and_then(Value::as_str).unwrap_or(NOTEBOOK).to_owned();
        let (of_notebook, has_program) = (model == NOTEBOOK, ProgramReplay::is_of(&case));
        if by_program || has_program && !of_notebook {
            ensure!(has_program, ProgramReplay::why_not(&case));
            return Ok(Recorded::Program(ProgramReplay::new(case)?));
        }
        ensure!(of_notebook, ProgramReplay::why_not(&case));
        match Replay::new(case) {
            // Another class of that name.
            Err(_) if has_program => Recorded::of(Case::load(file)?, file, true),
            replay => Ok(Recorded::Notebook(replay.context(NOT_BY_PORT)?)),
        }
    }

    pub(super) fn case(&self) -> &Case {
        match self {
            Recorded::Notebook(replay) => &replay.case,
            Recorded::Program(replay) => &replay.case,
        }
    }

    pub(super) fn run(&self, device: Device) -> Result<Trace> {
        match self {
            Recorded::Notebook(replay) => replay.run(device),
            Recorded::Program(replay) => replay.run(device),
        }
    }

    pub(super) fn dataflow(&self) -> Vec<Edge> {
        match self {
            Recorded::Notebook(replay) => dataflow(replay.run.steps),
            // Where the program cannot be read, the order of the tensors has to do.
            Recorded::Program(replay) => replay.dataflow().unwrap_or_default(),
        }
    }

    /// Returns the operations that compute the outputs of modules that differ, by the names of these.
    pub(super) fn operations(&self, comparison: &Comparison) -> BTreeMap<String, String> {
        let differ = comparison.tensors.iter().filter(|tensor| !tensor.passes);
        let differ = differ.map(|tensor| tensor.name.as_str()).collect::<HashSet<_>>();
        match self {
            Recorded::Program(replay) if !differ.is_empty() => {
                replay.computed_by(|name| differ.contains(name)).unwrap_or_default()
            }
            _ => BTreeMap::new(), // the notebook's dataflow has them
        }
    }
}
