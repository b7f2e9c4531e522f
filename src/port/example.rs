//! Inputs of a program for the test of its port: of sizes that it takes, and if it can be of others than it was exported
//! with.

use anyhow::{Context, Result, ensure};
use tch::{Device, Tensor};

use super::Port;
use super::flat::{Kind, Meta};
use super::rust::kind;
use crate::program::{Program, numbers};

impl Port {
    /// Chooses the sizes of the inputs.
    ///
    /// # Errors
    /// Returns an error if the program takes not even the sizes that it was exported with.
    pub(super) fn choose_sizes(&mut self, program: &Program) -> Result<()> {
        let metas = self.inputs()?;
        // A size that is computed from another one cannot always be one more.
        let larger = |meta: &Meta, also_computed: bool| {
            let sizes = meta.exported.iter().zip(&meta.symbols);
            let sizes = sizes.map(|(size, symbol)| {
                let is_one = !symbol.is_empty() && (also_computed || is_symbol(symbol));
                size + i64::from(is_one)
            });
            sizes.collect::<Vec<_>>()
        };
        let exported = metas.iter().map(|meta| meta.exported.clone()).collect::<Vec<_>>();
        let larger = [true, false].map(|also| metas.iter().map(|m| larger(m, also)).collect());
        let mut taken = Ok(());
        for sizes in larger.into_iter().chain([exported]) {
            taken = takes(program, &metas, &sizes);
            if taken.is_ok() {
                self.example_sizes = sizes;
                break;
            }
        }
        taken
    }

    /// Returns what is known of the tensors that the user gives.
    fn inputs(&self) -> Result<Vec<Meta>> {
        let inputs = self.flat.inputs.iter().map(|id| {
            let value = &self.flat.values[*id];
            ensure!(value.kind == Kind::Tensor, "an input is no tensor");
            value.meta.clone().context("an input of unknown shape")
        });
        inputs.collect()
    }

    /// Writes the inputs.
    pub(super) fn examples(&self) -> Result<String> {
        let inputs = self.inputs()?.into_iter().zip(&self.example_sizes).map(|(meta, sizes)| {
            let sizes = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let sizes = if sizes.is_empty() { "0i64; 0" } else { &sizes };
            let kind = kind(meta.dtype).context("an input of unknown dtype")?;
            Ok(match kind.as_str() {
                "Kind::Float" | "Kind::Double" | "Kind::Half" | "Kind::BFloat16" => {
                    format!("Tensor::f_randn([{sizes}], ({kind}, Device::Cpu))?")
                }
                _ => format!("Tensor::f_randint(2, [{sizes}], ({kind}, Device::Cpu))?"),
            })
        });
        Ok(inputs.collect::<Result<Vec<_>>>()?.join(", "))
    }
}

/// Returns whether a size is one symbol, and not computed from symbols.
fn is_symbol(symbol: &str) -> bool {
    symbol.matches('(').count() <= 1 && !symbol.contains(['+', '*', '/', '-'])
}

/// Checks that a program takes inputs of some sizes.
fn takes(program: &Program, metas: &[Meta], sizes: &[Vec<i64>]) -> Result<()> {
    let inputs = metas.iter().zip(sizes).map(|(meta, sizes)| {
        let (_, kind) = numbers::dtype(meta.dtype)?;
        Ok(Tensor::f_empty(sizes, (kind, Device::Cpu))?)
    });
    program.takes(&inputs.collect::<Result<Vec<_>>>()?)
}
