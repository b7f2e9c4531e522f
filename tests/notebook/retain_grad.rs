//! `retain_grad` does what it does in PyTorch.

#![cfg(feature = "libtorch")]

use std::sync::{Arc, Barrier};

use tch::{Device, Kind, TchError, Tensor};
use tch_parity::{RetainGrad, ThreeLayerNet};

fn leaf() -> Tensor {
    Tensor::from_slice(&[1f32, 2.]).set_requires_grad(true)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor).unwrap()
}

/// Calls Python's `loss.backward(retain_graph=True)`, which tch does not make public.
#[allow(unsafe_code)]
fn backward_keeping_graph(loss: &mut Tensor) {
    // SAFETY: the pointer is to the tensor that `loss` owns; an exception is caught on the C++ side.
    unsafe { torch_sys::at_backward(loss.as_mut_ptr(), 1, 0) };
}

#[test]
fn an_intermediate_tensor_keeps_its_gradient_only_when_asked() {
    let x = leaf();
    let (kept, lost) = (&x * 3, &x * 5);
    kept.retain_grad().unwrap();
    assert!(kept.retains_grad() && !lost.retains_grad());
    (&kept * &lost).sum(Kind::Float).backward();
    assert_eq!(values(&kept.grad()), [5., 10.]);
    assert!(!lost.grad().defined());
}

#[test]
fn a_leaf_is_left_as_it_is() {
    let x = leaf();
    x.retain_grad().unwrap();
    assert!(!x.retains_grad());
    x.sum(Kind::Float).backward();
    assert_eq!(values(&x.grad()), [1., 1.]);
}

#[test]
fn asking_twice_counts_the_gradient_once() {
    let h = leaf() * 3;
    h.retain_grad().unwrap();
    h.retain_grad().unwrap();
    h.sum(Kind::Float).backward();
    assert_eq!(values(&h.grad()), [1., 1.]);
}

#[test]
fn two_backward_passes_of_a_kept_graph_add_up() {
    let x = leaf();
    let h = &x * 3;
    h.retain_grad().unwrap();
    let mut loss = (&h * &h).sum(Kind::Float);
    for passes in [1., 2.] {
        backward_keeping_graph(&mut loss);
        assert_eq!(values(&h.grad()), [6. * passes, 12. * passes]);
        assert_eq!(values(&x.grad()), [18. * passes, 36. * passes]);
    }
}

#[test]
fn no_required_gradient_is_an_error_in_pytorchs_words() {
    let pytorchs = "can't retain_grad on Tensor that has requires_grad=False";
    let constant = Tensor::from_slice(&[1f32, 2.]);
    let without_grad = tch::no_grad(|| leaf() * 3);
    let undefined = Tensor::new();
    for tensor in [&constant, &(&constant * 3), &leaf().detach(), &without_grad, &undefined] {
        match tensor.retain_grad() {
            Err(TchError::Torch(message)) => assert_eq!(message, pytorchs),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_error_leaves_the_thread_and_others_usable() {
    let threads = (0..4).map(|_| {
        std::thread::spawn(|| {
            for _ in 0..200 {
                assert!(Tensor::from(1f32).retain_grad().is_err());
                let h = leaf() * 3;
                h.retain_grad().unwrap();
                h.sum(Kind::Float).backward();
                assert_eq!(values(&h.grad()), [1., 1.]);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

#[test]
fn outputs_of_one_operation_can_be_retained_by_several_threads() {
    for _ in 0..40 {
        let x = Tensor::ones([4000, 1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut rows = (&x * 2).split(1, 0);
        let parts = (0..4).map(|_| rows.split_off(rows.len() - 1000)).collect::<Vec<_>>();
        let start = Arc::new(Barrier::new(parts.len()));
        let threads = parts.into_iter().map(|rows| {
            let start = start.clone();
            std::thread::spawn(move || {
                start.wait();
                rows.iter().for_each(|row| row.retain_grad().unwrap());
                rows
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            assert!(thread.join().unwrap().iter().all(Tensor::retains_grad));
        }
    }
}

#[test]
fn forward_retains_every_intermediate_tensor_x_included() {
    let model = ThreeLayerNet::new(2, 2, 3).unwrap();
    let x = Tensor::from_slice2(&[[1f32, -1.]]);
    match model.forward(&x) {
        Err(TchError::Torch(message)) => {
            assert!(message.starts_with("can't retain_grad on Tensor"))
        }
        other => panic!("{other:?}"),
    }
    // An x that is itself computed keeps its gradient, too.
    let (h, results) = model.forward(&(x.set_requires_grad(true) * 2)).unwrap();
    h.backward();
    for (name, v) in &results {
        assert!(v.retains_grad() && v.grad().defined(), "{name}");
    }
}
