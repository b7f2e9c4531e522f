//! Seeded initial parameters are PyTorch's, to the bit.

#![cfg(feature = "libtorch")]

use crate::common::{assert_same, pytorch, scratch, seed};
use tch_parity::{Linear, ThreeLayerNet, Trace};

#[test]
fn seeded_parameters_are_those_that_pytorch_draws_now() {
    const NETS: usize = 240;
    let file = scratch("linear").join("init.safetensors");
    let seed = seed();
    println!("to repeat: TCH_PARITY_SEED={seed}");
    let args =
        ["init", "--seed", &seed, "--count", &NETS.to_string(), "--out", file.to_str().unwrap()];
    pytorch("tests/pytorch.py", &args);
    let expected = Trace::load(&file).unwrap();

    // The names are of the form "<number> <seed> <d1> <d2> <d3> <parameter>".
    let mut actual = Trace::new();
    for first in expected.names().filter(|name| name.ends_with("fc1.weight")) {
        let net = first.strip_suffix(" fc1.weight").unwrap();
        let numbers =
            net.split(' ').skip(1).map(|number| number.parse().unwrap()).collect::<Vec<i64>>();
        let [net_seed, d1, d2, d3] = numbers[..] else { panic!("{net}") };
        tch::manual_seed(net_seed);
        for (name, p) in ThreeLayerNet::new(d1, d2, d3).unwrap().named_parameters() {
            assert!(p.requires_grad());
            actual.push(format!("{net} {name}"), p).unwrap();
        }
    }
    assert_eq!(actual.names().count(), NETS * 6);
    assert_same(&actual, &expected);
}

#[test]
fn impossible_sizes_are_errors() {
    let message = Linear::new(-1, 2).unwrap_err().to_string();
    assert!(message.contains("negative dimension -1"), "{message}");
    let fc = Linear::new(3, 2).unwrap();
    let message = fc.forward(&tch::Tensor::from_slice2(&[[1f32, 2.]])).unwrap_err().to_string();
    assert!(message.contains("shapes cannot be multiplied (1x2 and 3x2)"), "{message}");
}
