//! Where a port is said to part from the recorded run: the operator, its module and the line of Python, also where a
//! port computes by other operators, and nothing where it does not part.

#![cfg(feature = "libtorch")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use common::recorded_file;
use tch::nn::{self, Module, VarStore};
use tch::{Device, Kind, Tensor};
use tch_parity::report::Report;
use tch_parity::{Case, Parity, Program, assert_same_as_program, replay_port_t};

/// Two steps of training and an evaluation.
const RUN: &str = r#"
import torch
from torch import nn
from tch_parity import Recorder, compute_with

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.fc2 = nn.Linear(6, 3)
        self.gain = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        h = self.norm(self.fc1(x))
        h = nn.functional.dropout(h, 0.5, self.training)
        y = h + 0.5 * torch.tanh(h)
        with torch.no_grad():
            scale = y.abs().mean()
        y = y * scale
        y = y / y.abs().max().clamp_min(1e-9)
        y[:, 1] += 0.25
        return self.fc2(y), y * self.gain

compute_with("portable")
torch.manual_seed(0)
net = Net()
"#;

const TWO_STEPS_AND_AN_EVALUATION: &str = r#"
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with Recorder("case.safetensors", net, optimizer=optimizer) as rec:
    for _ in range(2):
        with rec.watch():
            optimizer.zero_grad()
            sum(output.square().mean() for output in net(torch.randn(5, 4))).backward()
            optimizer.step()
    net.eval()
    rec.forward(torch.randn(5, 4))
program = torch.export.export(net.train(), (torch.randn(5, 4),), strict=False)
torch.export.save(program, "net.pt2")
"#;

/// Without an optimizer, nothing but a missing gradient tells of a graph that is cut.
const GRADIENTS_ALONE: &str = r#"
with Recorder("case.safetensors", net) as rec:
    with rec.watch():
        sum(output.square().mean() for output in net(torch.randn(5, 4))).backward()
    net.eval()
    rec.forward(torch.randn(5, 4))
"#;

/// What is wrong with the port.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    Eps,
    Factor,
    Scale,
    Detached,
    Cut,
    Shape,
    Layer,
    Clamped,
    InPlace,
    Calls,
    Gain,
    Swapped,
    InEvaluation,
    InTheSecondStep,
}

struct Net {
    fc1: nn::Linear,
    norm: nn::LayerNorm,
    fc2: nn::Linear,
    gain: Tensor,
    calls: Tensor,
    wrong: Wrong,
}

impl Net {
    fn new(p: nn::Path, wrong: Wrong) -> Net {
        let eps = if wrong == Wrong::Eps { 1e-3 } else { 1e-5 };
        Net {
            fc1: nn::linear(&p / "fc1", 4, 6, Default::default()),
            norm: nn::layer_norm(
                &p / "norm",
                vec![6],
                nn::LayerNormConfig { eps, ..Default::default() },
            ),
            fc2: nn::linear(&p / "fc2", 6, 3, Default::default()),
            gain: p.ones("gain", &[1]),
            calls: p.zeros_no_train("calls", &[]),
            wrong,
        }
    }

    fn forward_t(&self, x: &Tensor, train: bool, step: usize) -> Result<[Tensor; 2]> {
        let calls = if self.wrong == Wrong::Calls { 2 } else { 1 };
        let _ = self.calls.shallow_clone().f_add_scalar_(calls)?;
        // Not the operators of the program: `linear` is a product and a sum.
        let x = x.f_matmul(&self.fc1.ws.tr())?;
        let x = match &self.fc1.bs {
            Some(bias) => x.f_add(bias)?,
            None => x,
        };
        let x = if self.wrong == Wrong::Cut { x.f_detach()? } else { x };
        let h = self.norm.forward(&x).f_dropout(0.5, train)?;
        let factor = if self.wrong == Wrong::Factor { 0.75 } else { 0.5 };
        let tanh = h.f_tanh()?;
        let tanh = if self.wrong == Wrong::Detached { tanh.f_detach()? } else { tanh };
        let tanh = if self.wrong == Wrong::Shape { tanh.f_view([7])? } else { tanh };
        let mut y = h.f_add(&tanh.f_mul_scalar(factor)?)?;
        let scale = match self.wrong {
            Wrong::Scale => y.f_square()?.f_mean(Kind::Float)?,
            _ => y.f_abs()?.f_mean(Kind::Float)?,
        };
        y = y.f_mul(&scale.f_detach()?)?;
        let least = if self.wrong == Wrong::Clamped { 100. } else { 1e-9 };
        y = y.f_div(&y.f_abs()?.f_max()?.f_clamp_min(least)?)?;
        let added = if self.wrong == Wrong::InPlace { 0.5 } else { 0.25 };
        let _ = y.f_select(1, 1)?.f_add_scalar_(added)?;
        let is_wrong = match self.wrong {
            Wrong::InEvaluation => !train,
            Wrong::InTheSecondStep => step == 2,
            _ => false,
        };
        if is_wrong {
            y = y.f_neg()?;
        }
        let y = if self.wrong == Wrong::Layer { y.f_unsqueeze(-1)? } else { y };
        let gained = match self.wrong {
            Wrong::Gain => y.f_mul(&self.gain.f_detach()?)?,
            _ => y.f_mul(&self.gain)?,
        };
        let outputs = [self.fc2.forward(&y), gained];
        Ok(outputs)
    }
}

/// Is held by the test that computes: new parameters draw random numbers, as a recorded dropout does.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Records a run, and computes from here on as it did. Returns the case and its file.
fn recorded(name: &str, run: &str) -> Result<(Case, PathBuf)> {
    let (file, _) = recorded_file(name, &[RUN, run].concat());
    let case = Case::load(&file)?;
    case.environment.numerics.restart_with()?;
    Ok((case, file))
}

fn report(case: &Case, wrong: Wrong) -> Result<Report> {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let vs = VarStore::new(Device::Cpu);
    let net = Net::new(vs.root(), wrong);
    let mut calls = 0;
    let trace = replay_port_t(case, &vs, |inputs, train| {
        calls += 1;
        // A port that differs takes its steps twice.
        let step = (calls - 1) % 3 + 1;
        let [first, second] = net.forward_t(&inputs["x"], train, step)?;
        // The shapes differ, and the first is that of a part of the second.
        let first = match wrong {
            Wrong::Swapped => second.f_narrow(1, 0, 3)?,
            _ => first,
        };
        Ok(vec![("output[0]", first), ("output[1]", second)])
    })?;
    Parity::default().report(&trace, case)
}

#[test]
fn the_operator_that_a_port_does_not_compute_is_named() -> Result<()> {
    let (case, _) = recorded("parting", TWO_STEPS_AND_AN_EVALUATION)?;
    assert!(report(&case, Wrong::Nothing)?.comparison.passes());
    for (wrong, first, operator) in [
        (Wrong::Eps, "forward/output[0]", "aten::layer_norm in norm"),
        (Wrong::Factor, "forward/output[0]", "aten::mul.Tensor"),
        (Wrong::Scale, "forward/output[0]", "aten::abs"),
        (Wrong::Clamped, "forward/output[0]", "aten::div.Tensor"),
        (Wrong::InPlace, "forward/output[0]", "aten::add_.Tensor"),
        (Wrong::Swapped, "forward/output[0]", "what the port returns"),
        (Wrong::Calls, "step/1/calls", "aten::copy_"),
        (Wrong::Gain, "grad/gain", "the backward of aten::mul.Tensor"),
        (Wrong::Detached, "grad/norm.weight", "the backward of aten::mul.Tensor"),
        (Wrong::InTheSecondStep, "step/2/forward/output[0]", "aten::linear in fc2"),
        (Wrong::InEvaluation, "step/3/forward/output[0]", "aten::linear in fc2"),
    ] {
        let report = report(&case, wrong)?;
        assert!(!report.comparison.passes(), "{wrong:?}");
        let text = report.text();
        let origin = text.lines().find(|line| line.contains("is the first to differ"));
        let origin = origin.unwrap_or_default();
        assert!(origin.starts_with(first) && origin.contains(operator), "{wrong:?}: {text}");
    }
    Ok(())
}

#[test]
fn a_port_that_fails_is_told_where_the_program_goes_on() -> Result<()> {
    let (case, _) = recorded("parting_fails", GRADIENTS_ALONE)?;
    for (wrong, operator, why) in [
        (Wrong::Shape, "look at aten::mul.Tensor", "shape '[7]' is invalid for input of size 30"),
        // tch's layers panic.
        (Wrong::Layer, "look at aten::linear in fc2", "mat1 and mat2 shapes cannot be multiplied"),
    ] {
        let said = format!("{:#}", report(&case, wrong).unwrap_err());
        assert!(said.contains(operator) && said.contains(why), "{said}");
    }
    Ok(())
}

#[test]
fn a_port_of_a_program_is_told_the_operator_as_well() -> Result<()> {
    let (_, file) = recorded("parting_program", TWO_STEPS_AND_AN_EVALUATION)?;
    let program = Program::load(file.with_file_name("net.pt2"))?;
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let said = |wrong| {
        let vs = VarStore::new(Device::Cpu);
        let net = Net::new(vs.root(), wrong);
        let x = Tensor::f_ones([5, 4], (Kind::Float, Device::Cpu))?;
        let assertion = || {
            assert_same_as_program(&program, &vs, &[x], |inputs| {
                Ok(net.forward_t(&inputs[0], true, 1)?.into())
            })
        };
        match catch_unwind(AssertUnwindSafe(assertion)) {
            Ok(result) => result.map(|()| String::new()),
            Err(panic) => Ok(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
        }
    };
    assert_eq!(said(Wrong::Nothing)?, "");
    for (wrong, operator) in [
        (Wrong::Factor, "look at aten::mul.Tensor: "),
        (Wrong::Calls, "step/1/calls is the first to differ; look at aten::copy_"),
        (Wrong::Cut, "look at the backward of aten::layer_norm in norm"),
    ] {
        let text = said(wrong)?;
        assert!(text.contains(operator), "{wrong:?}: {text}");
    }
    Ok(())
}

#[test]
fn a_gradient_that_a_port_does_not_compute_fails_it() -> Result<()> {
    let (case, _) = recorded("parting_gradients", GRADIENTS_ALONE)?;
    assert!(report(&case, Wrong::Nothing)?.comparison.passes());
    let text = report(&case, Wrong::Cut)?.text();
    assert!(text.contains("grad/fc1.weight is the first to differ (it is missing"), "{text}");
    assert!(text.contains("look at the backward of aten::layer_norm in norm"), "{text}");
    Ok(())
}
