//! Complex numbers, and complex128, which a file holds as two tensors of float64.

use safetensors::tensor::{Dtype, TensorView};
use tch_parity::{Accepted, Comparison, Criterion, Trace, Verdict, compare};

const NAN: f64 = f64::NAN;

fn parts(numbers: &[(f64, f64)]) -> Trace {
    let mut trace = Trace::new();
    let of = |part: fn(&(f64, f64)) -> f64| {
        numbers.iter().flat_map(|number| part(number).to_le_bytes()).collect::<Vec<_>>()
    };
    for (name, bytes) in [("z[real]", of(|z| z.0)), ("z[imag]", of(|z| z.1))] {
        let view = TensorView::new(Dtype::F64, vec![numbers.len()], &bytes).unwrap();
        trace.push_view(name, &view).unwrap();
    }
    trace
}

fn compared(actual: &[(f64, f64)], expected: &[(f64, f64)], criterion: Criterion) -> Comparison {
    let (actual, expected) = (parts(actual), parts(expected));
    let mut comparison = compare(&actual, &expected, criterion);
    comparison.detail(&actual, &expected);
    comparison
}

#[test]
fn complex128_is_one_tensor() {
    let comparison = compared(&[(3., 4.), (0., 1.)], &[(0., 0.), (0., 1.)], Criterion::Close);
    let [tensor] = &comparison.tensors[..] else { panic!("{comparison:?}") };
    assert_eq!((&*tensor.name, &*tensor.dtype, &tensor.shape[..]), ("z", "C128", &[2][..]));
    let found = &tensor.statistics;
    assert_eq!((found.max_abs, found.max_expected, found.scaled), (5., 1., 5.));
    assert_eq!((found.numel, found.unequal, found.not_close), (2, 1, 1));
    let worst = &tensor.details.as_ref().unwrap().worst[0];
    assert_eq!((&*worst.actual.0, worst.abs, &worst.index[..]), ("3.0+4.0j", 5., &[0][..]));
    assert_eq!(found.worst.as_ref().unwrap().index, worst.index);

    let accepted = Accepted::default().tolerance("z=atol:5,reason:known").unwrap();
    let mut accepting = comparison.clone();
    let traces = [&[(3., 4.), (0., 1.)], &[(0., 0.), (0., 1.)]].map(|numbers| parts(numbers));
    accepting.accept(&accepted, &traces[0], &traces[1]);
    assert!(accepting.passes());
    // Parts of which one side has another shape are two tensors, as they are in the file.
    let names = compare(&traces[0], &parts(&[(0., 0.)]), Criterion::Close).tensors;
    assert_eq!(names.len(), 2);
}

#[test]
fn a_complex_number_is_nan_if_a_part_of_it_is() {
    let of = |actual, expected, criterion| {
        let tensor = compared(&[actual], &[expected], criterion).tensors.remove(0);
        (tensor.passes, tensor.verdict, tensor.statistics.max_abs)
    };
    let (close, bitwise) = (Criterion::Close, Criterion::Bitwise);
    assert_eq!(of((NAN, 1.), (NAN, 1.), bitwise), (true, Verdict::Bitwise, 0.));
    // The bits of the other part differ, and the value does not.
    assert_eq!(of((NAN, 1.), (NAN, 9.), close), (true, Verdict::Close, 0.));
    assert_eq!(of((NAN, 1.), (1., NAN), close), (true, Verdict::Close, 0.));
    assert!(!of((NAN, 1.), (NAN, 9.), bitwise).0);
    assert_eq!(of((NAN, 1.), (2., 1.), close), (false, Verdict::Differs, f64::INFINITY));
    assert_eq!(of((2., 1.), (2., NAN), close), (false, Verdict::Differs, f64::INFINITY));
}

/// A part that is small beside the other is as near as the other lets it be.
#[test]
fn complex_numbers_are_measured_by_their_magnitudes() {
    let (expected, actual) = ((1e3, 1e-3), (1e3, 1e-3 + 1e-12));
    let found = compared(&[actual], &[expected], Criterion::Close);
    assert!(found.passes(), "{found:?}");
    let of_part = compared(&[(actual.1, 0.)], &[(expected.1, 0.)], Criterion::Close);
    assert!(!of_part.passes());
}

#[test]
fn a_complex_number_is_written_with_a_sign_between_its_parts() {
    let found = compared(&[(f64::INFINITY, NAN)], &[(1., -2.)], Criterion::Close);
    let worst = found.tensors[0].statistics.worst.clone().unwrap();
    assert_eq!((&*worst.actual.0, &*worst.expected.0), ("inf+NaNj", "1.0-2.0j"));
}
