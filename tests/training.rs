//! A convolutional net that is trained with AdamW, clipping and a schedule has PyTorch's bits after each of 30 steps,
//! also when it is taken up in the middle.

#![cfg(feature = "libtorch")]

mod common;

use common::{pytorch, scratch, seed};
use tch::nn::{self, Module, ModuleT, VarStore};
use tch::{Device, Tensor};
use tch_parity::optim::{AdamW, OneCycleLR, Optimizer, Scheduler, clip_grad_norm_};
use tch_parity::{Case, Numerics, Trace};

const STEPS: u32 = 30;

struct Training {
    vs: VarStore,
    convs: [nn::Conv2D; 2],
    norms: [nn::BatchNorm; 2],
    classifier: nn::Linear,
    optimizer: Optimizer<AdamW>,
    schedule: Scheduler,
    /// All parameters in PyTorch's order, in which the norms of their gradients are added up.
    parameters: Vec<Tensor>,
}

impl Training {
    fn new(case: &Case) -> Training {
        let vs = VarStore::new(Device::Cpu);
        let features = vs.root() / "features";
        let conv = |name: i64, inputs, outputs, bias| {
            let config = nn::ConvConfig { padding: 1, bias, ..Default::default() };
            nn::conv2d(&features / name, inputs, outputs, 3, config)
        };
        let norm = |name: i64, n| nn::batch_norm2d(&features / name, n, Default::default());
        let convs = [conv(0, 1, 4, false), conv(4, 4, 8, true)];
        let norms = [norm(1, 4), norm(5, 8)];
        let classifier = nn::linear(vs.root() / "classifier", 8 * 2 * 2, 3, Default::default());
        case.load_parameters(&vs).unwrap();
        let named = case.named_parameters(&vs);
        let parameters = named.iter().map(|(_, p)| p.shallow_clone()).collect();
        let (decayed, others) = named.into_iter().partition::<Vec<_>, _>(|(_, p)| p.dim() > 1);
        let options = AdamW { lr: 1e-2, ..Default::default() };
        let mut optimizer = options.clone().build_from(decayed).unwrap();
        optimizer.add_group(AdamW { weight_decay: 0., lr: 2e-3, ..options }, others).unwrap();
        let schedule = OneCycleLR {
            max_lr: vec![3e-2, 1e-2].into(),
            total_steps: STEPS.into(),
            ..Default::default()
        };
        let schedule = schedule.build(&mut optimizer).unwrap();
        Training { vs, convs, norms, classifier, optimizer, schedule, parameters }
    }

    /// Takes a step, and returns a line for each tensor that is not the case's.
    fn step(&mut self, case: &Case, k: u32) -> Vec<String> {
        self.optimizer.zero_grad().unwrap();
        let mut x = case.input(k, "image").unwrap();
        for (conv, norm) in self.convs.iter().zip(&self.norms) {
            x = norm.forward_t(&conv.forward(&x), true).relu().max_pool2d_default(2);
        }
        let x = self.classifier.forward(&x.flatten(1, -1));
        let loss = x.cross_entropy_for_logits(&case.input(k, "target").unwrap());
        loss.backward();
        clip_grad_norm_(&self.parameters, 0.5, 2.).unwrap();
        self.optimizer.step().unwrap();
        self.schedule.step(&mut self.optimizer).unwrap();
        let mut trace = Trace::new();
        trace.push(format!("step/{k}/L"), &loss).unwrap();
        for (name, variable) in self.vs.variables() {
            trace.push(format!("step/{k}/{name}"), &variable).unwrap();
        }
        self.optimizer.save_state(&mut trace, &format!("step/{k}/state/")).unwrap();
        let same = |name: &str, data: &[u8]| {
            case.trace.get(name).is_some_and(|expected| expected.data() == data)
        };
        let unlike = trace.iter().filter(|(name, view)| !same(name, view.data()));
        unlike.map(|(name, _)| format!("{name} differs")).collect()
    }
}

fn has_the_bits_of_pytorch(numerics: &str) {
    let seed = seed();
    let file = scratch("training").join("case.safetensors");
    pytorch("tests/training.py", &[file.to_str().unwrap(), &seed, numerics]);
    let case = Case::load(&file).unwrap();
    let mut training = Training::new(&case);
    let wrong = (1..=STEPS).flat_map(|k| training.step(&case, k)).collect::<Vec<_>>();
    assert!(wrong.is_empty(), "seed {seed}, {numerics}: {wrong:?}");

    // From the middle: parameters and state from the case, and the schedule stepped as often.
    let half = STEPS / 2;
    let mut training = Training::new(&case);
    tch::no_grad(|| {
        for (name, mut variable) in training.vs.variables() {
            variable.copy_(&case.trace.tensor(&format!("step/{half}/{name}")).unwrap());
        }
    });
    let prefix = format!("step/{half}/state/");
    training.optimizer.load_state(&case.trace, &prefix).unwrap();
    (0..half).for_each(|_| training.schedule.step(&mut training.optimizer).unwrap());
    let wrong = (half + 1..=STEPS).flat_map(|k| training.step(&case, k)).collect::<Vec<_>>();
    assert!(wrong.is_empty(), "seed {seed}, {numerics}, from the middle: {wrong:?}");
}

#[test]
fn a_convolutional_net_trained_with_adamw_clipping_and_a_schedule_has_the_bits_of_pytorch() {
    tch::set_num_threads(1);
    if Numerics::in_use() == Numerics::Native {
        has_the_bits_of_pytorch("native");
        Numerics::Portable.restart_with().unwrap();
    }
    has_the_bits_of_pytorch("portable");
}
