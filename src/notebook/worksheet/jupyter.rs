//! The whole notebook, filled in, for Jupyter: its cells with what they print, and the worksheet between them.
//!
//! The JSON is written here: the crate nbformat brings 16 more crates, an asynchronous runtime's among them, for the
//! 45 lines of `Cell::json` and what calls it. A test validates the result with Jupyter's own nbformat.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value, json};
use tch::{Device, Kind, Tensor};

use super::Worksheet;
use super::blocks::Block;
use super::markdown::{escape, markdown};
use super::notation::Notation;
use crate::notebook::ThreeLayerNet;
use crate::notebook::printed::Printed;
use crate::repr::repr_float;
use crate::trace::Numerics;

const TITLE: &str = "# Backpropagation in a three-layer net, filled in\n\n";
const FORMULAS: &str = "Two hidden layers with ReLU, a sigmoid and binary cross entropy:\n\n";

const PORTABLE: &str = r#"# The same bits on every machine: to be set before torch is imported.
import os
os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE")

"#;
const IMPORTS: &str = "import torch\nfrom torch import nn";
const ONE_THREAD: &str = "\n\ntorch.set_num_threads(1)";

/// The Python file of the net: the imports, and then the class.
const NET_FILE: &str = include_str!("../../../scripts/three_layer_net.py");

const MODEL: &str = "model";

const INITIAL_WEIGHTS: &str = "for name, p in model.named_parameters():
    print('-', name)
    print(p.data)
    print()";

const FORWARD: &str = "y_hat, results = model(x)\nloss = criterion(y_hat, y)";

const SHOW_FORWARD: &str = "for name, v in results.items():
    print(name, '\\t', v.data)
print('L', '\\t', loss.data)";

const BACKWARD: &str = "optimizer.zero_grad()\nloss.backward()";

const SHOW_GRADIENTS: &str = "for name, v in results.items():
    print('Gradient of', name, '\\t', v.grad)";

const SHOW_PARAMETER_GRADIENTS: &str = "for name, p in model.named_parameters():
    print('Gradient of', name)
    print(p.grad)
    print()";

impl Worksheet {
    /// Renders the whole notebook in [nbformat 4.5], with what every code cell prints.
    ///
    /// [nbformat 4.5]: https://nbformat.readthedocs.io/en/latest/format_description.html
    ///
    /// # Errors
    /// Returns libtorch's errors.
    pub fn ipynb(&self) -> Result<String> {
        let prose = |blocks: Vec<Block>| Cell::Prose(markdown(&blocks));
        let portable = self.replay.case.environment.numerics == Numerics::Portable;
        let imports =
            if portable { [PORTABLE, IMPORTS, ONE_THREAD].concat() } else { IMPORTS.to_owned() };
        let model = self.replay.model(Device::Cpu)?;
        let printed = Printed { trace: &self.replay.case.trace, device: Device::Cpu };
        let of = format!("This is the worksheet of {}.\n\n", escape(&self.title));
        let latex = Notation::Latex;
        let introduction = markdown(&self.introduction(latex));
        let formulas = markdown(&self.formula_table(latex)?);
        let mut derivation = self.backward_table(latex)?;
        derivation.extend(self.derivations(latex)?);
        let mut end = self.remark_list(latex)?;
        end.push(self.conclusion());
        let cells = [
            Cell::Figure([TITLE, &of, FORMULAS, &formulas, &introduction].concat(), self.figure()),
            Cell::Code(imports, Output::None),
            Cell::Code(net_cell()?, Output::None),
            Cell::Code(self.model_cell(&model)?, Output::None),
            Cell::Code(MODEL.to_owned(), Output::Result(model.to_string())),
            Cell::Code(self.data_cell()?, Output::None),
            Cell::Code(INITIAL_WEIGHTS.to_owned(), Output::Stdout(printed.initial_weights()?)),
            prose(self.forward_table(latex)?),
            Cell::Code(FORWARD.to_owned(), Output::None),
            Cell::Code(SHOW_FORWARD.to_owned(), Output::Stdout(printed.forward()?)),
            prose(derivation),
            Cell::Code(BACKWARD.to_owned(), Output::None),
            Cell::Code(SHOW_GRADIENTS.to_owned(), Output::Stdout(printed.gradients()?)),
            Cell::Code(
                SHOW_PARAMETER_GRADIENTS.to_owned(),
                Output::Stdout(printed.parameter_gradients()?),
            ),
            prose(end),
        ];
        let mut executed = 0;
        let cells = cells.into_iter().enumerate();
        let cells = cells.map(|(at, cell)| cell.json(at, &mut executed)).collect::<Vec<_>>();
        let notebook = json!({
            "cells": cells,
            "metadata": {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        });
        // Jupyter itself saves notebooks with an indentation of one space.
        let mut text = Vec::new();
        notebook.serialize(&mut Serializer::with_formatter(
            &mut text,
            PrettyFormatter::with_indent(b" "),
        ))?;
        text.push(b'\n');
        Ok(String::from_utf8(text)?)
    }

    fn model_cell(&self, model: &ThreeLayerNet) -> Result<String> {
        let [_, d3, d2, d1] = self.values.sizes;
        let mut code = format!(
            "model = ThreeLayerNet({d1}, {d2}, {d3})\ncriterion = nn.BCELoss()\n\n\
             # The weights are set before there is an optimizer, which steps the parameters that it is given.\n"
        );
        for (name, p) in model.named_parameters() {
            code += &format!("model.{name} = nn.Parameter({})\n", literal(p, "")?);
        }
        Ok(code + "\n" + &self.optimizer()?)
    }

    /// Returns the line that builds the optimizer.
    fn optimizer(&self) -> Result<String> {
        let optimizer = &self.replay.run.optimizer;
        let mut groups = String::new();
        for group in &optimizer.groups {
            let names = group.parameters.iter().map(|name| format!("model.{name}"));
            let names = names.collect::<Vec<_>>().join(", ");
            groups += &format!("    {{\"params\": [{names}]");
            for (name, value) in optimizer.written_out(Some(group))? {
                groups += &format!(", \"{name}\": {}", python_value(value));
            }
            groups += "},\n";
        }
        let mut code = format!("optimizer = torch.optim.{}(", optimizer.name);
        code += &match groups.is_empty() {
            true => "model.parameters()".to_owned(),
            false => format!("[\n{groups}]"),
        };
        for (name, value) in optimizer.written_out(None)? {
            code += &format!(", {name}={}", python_value(value));
        }
        Ok(code + ")")
    }

    fn data_cell(&self) -> Result<String> {
        let trace = &self.replay.case.trace;
        let x = literal(&trace.tensor("input/x")?, ", requires_grad=True")?;
        Ok(format!("x = {x}\ny = {}", literal(&trace.tensor("input/y")?, "")?))
    }
}

/// Returns a value of JSON as Python's source has it.
fn python_value(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_f64() => repr_float(number.as_f64().unwrap_or(f64::NAN)),
        Value::Array(values) => {
            format!("({})", values.iter().map(python_value).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Returns the source of the class without its imports, for which the notebook has a cell of its own.
fn net_cell() -> Result<String> {
    let (_, class) = NET_FILE.split_once("\n\n\n").context("no class in three_layer_net.py")?;
    Ok(class.trim_end().to_owned())
}

/// A cell of a notebook.
enum Cell {
    /// A cell in Markdown.
    Prose(String),
    /// A cell in Markdown that ends with the figure, or with the reason why there is none.
    Figure(String, Result<String>),
    Code(String, Output),
}

enum Output {
    None,
    Stdout(String),
    /// The value of the cell's last line.
    Result(String),
}

impl Cell {
    fn json(self, at: usize, executed: &mut usize) -> Value {
        let id = format!("cell-{at}");
        let prose = |text: &str| json!({"cell_type": "markdown", "id": id, "metadata": {}, "source": lines(text.trim_end())});
        match self {
            Cell::Prose(text) => prose(&text),
            Cell::Figure(text, Err(too_large)) => {
                prose(&format!("{text}No figure: {too_large:#}."))
            }
            Cell::Figure(text, Ok(svg)) => {
                let mut cell = prose(&format!("{text}![The net](attachment:net.svg)"));
                cell["attachments"] = json!({"net.svg": {"image/svg+xml": STANDARD.encode(svg)}});
                cell
            }
            Cell::Code(code, output) => {
                *executed += 1;
                let outputs = match output {
                    Output::None => json!([]),
                    Output::Stdout(text) => {
                        json!([{"output_type": "stream", "name": "stdout", "text": lines(&text)}])
                    }
                    Output::Result(text) => json!([{
                        "output_type": "execute_result", "execution_count": executed, "metadata": {},
                        "data": {"text/plain": lines(&text)},
                    }]),
                };
                json!({
                    "cell_type": "code", "id": id, "metadata": {}, "execution_count": executed,
                    "source": lines(&code), "outputs": outputs,
                })
            }
        }
    }
}

/// Splits text into lines that keep their line ends, as nbformat stores it.
fn lines(text: &str) -> Value {
    text.split_inclusive('\n').collect()
}

/// Writes a vector or a matrix as Python code that gives the same bits.
fn literal(tensor: &Tensor, arguments: &str) -> Result<String> {
    const OPEN: &str = "torch.tensor(";
    let double = tensor.f_kind()? == Kind::Double;
    let numbers = Vec::<f64>::try_from(tensor.f_to_kind(Kind::Double)?.f_reshape(-1)?)?;
    let numbers = numbers.iter().map(|&value| python(value, double)).collect::<Vec<_>>();
    let elements = match tensor.size()[..] {
        [rows, columns] => {
            let row = |row: i64| {
                let at = (row * columns) as usize;
                format!("[{}]", numbers[at..at + columns as usize].join(", "))
            };
            let separator = format!(",\n{}", " ".repeat(OPEN.len() + 1));
            format!("[{}]", (0..rows).map(row).collect::<Vec<_>>().join(&separator))
        }
        _ => format!("[{}]", numbers.join(", ")),
    };
    let dtype = if double { ", dtype=torch.float64" } else { "" };
    if let ([rows, columns], true) = (&tensor.size()[..], numbers.is_empty()) {
        return Ok(format!("torch.empty({rows}, {columns}{dtype}{arguments})"));
    }
    Ok(format!("{OPEN}{elements}{dtype}{arguments})"))
}

/// Writes a float of the tensor's dtype as Python code. Python reads it as a float64 first.
fn python(value: f64, double: bool) -> String {
    if !value.is_finite() {
        return format!("float('{}')", repr_float(value));
    }
    let short = format!("{:?}", value as f32);
    let reads_back = short.parse::<f64>().is_ok_and(|read| read as f32 == value as f32);
    if !double && reads_back { short } else { repr_float(value) }
}
