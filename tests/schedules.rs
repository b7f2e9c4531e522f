//! The schedules set PyTorch's learning rates: every bit of 300 steps, for random settings now.

#![cfg(feature = "libtorch")]

mod common;

use std::collections::BTreeMap;

use anyhow::Result;
use common::{pytorch, scratch, seed};
use serde::Deserialize;
use serde_json::{Value, from_value};
use tch::{Device, Kind, Tensor};
use tch_parity::Trace;
use tch_parity::optim::*;

const CASES: &str = "40";

/// A case of `tests/schedules.py`.
#[derive(Deserialize)]
struct Case {
    optimizer: String,
    lrs: Vec<f64>,
    name: String,
    options: Value,
    /// The message with which PyTorch refuses the options.
    #[serde(default)]
    message: String,
}

/// What `tests/schedules.py` writes.
#[derive(Deserialize)]
struct Run {
    cases: Vec<Case>,
    refused: Vec<Case>,
}

fn parameter(i: usize) -> [(String, Tensor); 1] {
    let tensor = Tensor::zeros([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    [(format!("p{i}"), tensor)]
}

fn optimizer(name: &str, lrs: &[f64]) -> Box<dyn ParamGroups> {
    match name {
        "SGD" => {
            let mut optimizer = SGD { lr: lrs[0], ..Default::default() };
            let mut built = optimizer.clone().build_from(parameter(0)).unwrap();
            optimizer.lr = lrs[1];
            built.add_group(optimizer, parameter(1)).unwrap();
            Box::new(built)
        }
        _ => {
            let mut built =
                Adam { lr: lrs[0], ..Default::default() }.build_from(parameter(0)).unwrap();
            built.add_group(Adam { lr: lrs[1], ..Default::default() }, parameter(1)).unwrap();
            Box::new(built)
        }
    }
}

type Lambda = Box<dyn Fn(i64) -> f64>;

fn lambda(function: &Value) -> Lambda {
    let number = |name: &str| function.get(name).and_then(Value::as_f64);
    match number("base") {
        Some(base) => Box::new(move |epoch| base.powf(epoch as f64)),
        None => {
            let inverse = number("inverse").unwrap();
            Box::new(move |epoch| 1. / (1. + inverse * epoch as f64))
        }
    }
}

enum Built {
    Plain(Scheduler),
    Plateau(ReduceLROnPlateauScheduler),
}

fn build(name: &str, options: &Value, optimizer: &mut dyn ParamGroups) -> Result<Built> {
    let mut options = options.clone();
    if let Some(map) = options.as_object_mut() {
        map.remove("name");
    }
    macro_rules! plain {
        ($schedule:ident) => {
            from_value::<$schedule>(options)?.build(optimizer)?
        };
    }
    macro_rules! lambdas {
        ($schedule:ident) => {{
            let functions = options["functions"].as_array().unwrap();
            let mut functions = functions.iter().map(lambda).collect::<Vec<_>>();
            match functions.len() {
                1 => $schedule::new(functions.remove(0)).build(optimizer)?,
                _ => $schedule::per_group(functions).build(optimizer)?,
            }
        }};
    }
    let mut parts = || {
        let parts = options["schedulers"].as_array().unwrap().iter();
        let built = parts.map(|part| {
            let Built::Plain(scheduler) = build(part["name"].as_str().unwrap(), part, optimizer)?
            else {
                panic!("{part}")
            };
            Ok(scheduler)
        });
        built.collect::<Result<Vec<_>>>()
    };
    Ok(Built::Plain(match name {
        "StepLR" => plain!(StepLR),
        "MultiStepLR" => plain!(MultiStepLR),
        "ConstantLR" => plain!(ConstantLR),
        "LinearLR" => plain!(LinearLR),
        "ExponentialLR" => plain!(ExponentialLR),
        "PolynomialLR" => plain!(PolynomialLR),
        "CosineAnnealingLR" => plain!(CosineAnnealingLR),
        "CosineAnnealingWarmRestarts" => plain!(CosineAnnealingWarmRestarts),
        "CyclicLR" => plain!(CyclicLR),
        "OneCycleLR" => plain!(OneCycleLR),
        "LambdaLR" => lambdas!(LambdaLR),
        "MultiplicativeLR" => lambdas!(MultiplicativeLR),
        "SequentialLR" => {
            let milestones = from_value(options["milestones"].clone())?;
            SequentialLR { schedulers: parts()?, milestones }.build(optimizer)?
        }
        "ChainedScheduler" => ChainedScheduler { schedulers: parts()? }.build(optimizer)?,
        "ReduceLROnPlateau" => {
            let schedule = from_value::<ReduceLROnPlateau>(options)?;
            return Ok(Built::Plateau(schedule.build(optimizer)?));
        }
        name => panic!("{name}"),
    }))
}

/// Replays a case, and returns the first step with another learning rate or momentum.
fn replay(trace: &Trace, key: usize, case: &Case) -> Result<Option<String>> {
    let numbers = |name: &str| {
        let bytes = trace.get(&format!("{key}/{name}")).unwrap();
        let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
        bytes.data().chunks(8).map(number).collect::<Vec<_>>()
    };
    let mut optimizer = optimizer(&case.optimizer, &case.lrs);
    let mut scheduler = build(&case.name, &case.options, &mut *optimizer)?;
    let (seen, metrics) = (numbers("seen"), numbers("metrics"));
    for (step, (&metric, seen)) in metrics.iter().zip(seen.chunks(4)).enumerate() {
        let mut now = match &scheduler {
            Built::Plain(scheduler) => scheduler.get_last_lr().to_vec(),
            Built::Plateau(scheduler) => scheduler.get_last_lr().to_vec(),
        };
        now.extend((0..2).map(|group| *optimizer.momentum(group).unwrap()));
        if now.iter().zip(seen).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return Ok(Some(format!(
                "step {step}: {now:?} here, {seen:?} there; {} {}",
                case.name, case.options
            )));
        }
        match &mut scheduler {
            Built::Plain(scheduler) => scheduler.step(&mut *optimizer)?,
            Built::Plateau(scheduler) => scheduler.step(metric, &mut *optimizer)?,
        }
    }
    Ok(None)
}

#[test]
fn random_schedules_and_refusals_are_those_of_pytorch() {
    let seed = seed();
    let file = scratch("schedules").join("cases.safetensors");
    pytorch("tests/schedules.py", &[file.to_str().unwrap(), &seed, CASES]);
    let trace = Trace::load(&file).unwrap();
    let Run { cases, refused } = trace.run::<Run>().unwrap().unwrap();
    assert!(refused.len() > 20, "{}", refused.len());
    for case in &refused {
        let mut optimizer = optimizer(&case.optimizer, &case.lrs);
        let built = build(&case.name, &case.options, &mut *optimizer);
        let message = built.err().map(|err| err.to_string());
        assert_eq!(message.as_deref(), Some(case.message.as_str()), "{}", case.options);
    }
    let mut wrong = BTreeMap::<&str, Vec<String>>::new();
    for (key, case) in cases.iter().enumerate() {
        let failure = replay(&trace, key, case)
            .unwrap_or_else(|err| Some(format!("{err:#}; {} {}", case.name, case.options)));
        wrong.entry(&case.name).or_default().extend(failure);
    }
    assert_eq!(wrong.len(), 15, "schedules");
    let wrong = wrong.iter().filter(|(_, failures)| !failures.is_empty());
    let wrong =
        wrong.map(|(name, failures)| format!("{name}: {} differ; {}", failures.len(), failures[0]));
    let wrong = wrong.collect::<Vec<_>>();
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
}

#[test]
fn a_schedule_that_does_not_fit_its_optimizer_is_refused() {
    let message = |result: Result<()>| result.unwrap_err().to_string();
    let mut adagrad = Adagrad::default().build_from(parameter(0)).unwrap();
    let cycle = OneCycleLR { max_lr: 0.1.into(), total_steps: 3, ..Default::default() };
    let words = "optimizer must support momentum or beta1 with `cycle_momentum` option enabled";
    assert_eq!(message(cycle.clone().build(&mut adagrad).map(drop)), words);
    let mut schedule = OneCycleLR { cycle_momentum: false, ..cycle }.build(&mut adagrad).unwrap();
    (0..3).for_each(|_| schedule.step(&mut adagrad).unwrap());
    let words = "Tried to step 4 times. The specified number of total steps is 3";
    assert_eq!(message(schedule.step(&mut adagrad)), words);

    let mut schedule = ExponentialLR { gamma: 0.5 }.build(&mut adagrad).unwrap();
    adagrad.add_group(Adagrad::default(), parameter(1)).unwrap();
    let words = "a schedule of 1 groups, for an optimizer of 2";
    assert_eq!(message(schedule.step(&mut adagrad)), words);
}
