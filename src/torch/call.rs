//! Any operator, by its name, through PyTorch's dispatcher. The C++ side is `call.cpp`.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_void};
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, ensure};
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use super::shim::{check, text_of};

/// A value that an operator takes or returns.
///
/// A dtype, a layout and a memory format are integers: those of
/// [`c10::ScalarType`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/headeronly/core/ScalarType.h), `c10::Layout`
/// and `c10::MemoryFormat`.
#[derive(Debug)]
pub enum Value {
    /// `None`.
    None,
    /// A tensor.
    Tensor(Tensor),
    /// A list of tensors, in which some may be missing.
    Tensors(Vec<Option<Tensor>>),
    /// An integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A float. Where a tensor is expected, it is a number that has no influence on the dtype of the result.
    Float(f64),
    /// A list of floats.
    Floats(Vec<f64>),
    /// A complex number: its real and its imaginary part.
    Complex(f64, f64),
    /// A boolean.
    Bool(bool),
    /// A list of booleans.
    Bools(Vec<bool>),
    /// A string.
    Text(String),
    /// A device, such as `cuda:0`.
    Device(String),
}

/// The `Value` of `call.cpp`.
#[repr(C)]
struct RawValue {
    kind: i32,
    integer: i64,
    number: f64,
    imaginary: f64,
    data: *const c_void,
    count: usize,
}

unsafe extern "C" {
    fn tch_parity_schema(
        name: *const c_char,
        overload: *const c_char,
        schema: *mut *const c_char,
    ) -> *const c_char;
    fn tch_parity_prepare(
        name: *const c_char,
        overload: *const c_char,
        names: *const *const c_char,
        values: *const RawValue,
        count: usize,
        given: usize,
        prepared: *mut *mut c_void,
    ) -> *const c_char;
    fn tch_parity_forget(prepared: *mut c_void);
    fn tch_parity_call(
        prepared: *const c_void,
        given: *const RawValue,
        take: extern "C" fn(*mut c_void, *const RawValue),
        to: *mut c_void,
    ) -> *const c_char;
    fn tch_parity_backward(
        outputs: *const *const C_tensor,
        gradients: *const *const C_tensor,
        count: usize,
    ) -> *const c_char;
}

/// Calls an operator by its name and overload, with arguments by the names that they have in its schema. An argument
/// that is left out has its default.
///
/// ```
/// use tch::Tensor;
/// use tch_parity::{Value, call};
///
/// let x = Tensor::from_slice(&[3f64, 4.]);
/// let norm = call("aten::linalg_vector_norm", "", &[("self", Value::Tensor(x)), ("ord", Value::Int(2))])?;
/// assert!(matches!(&norm[..], [Value::Tensor(norm)] if norm.double_value(&[]) == 5.));
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// Returns an error if libtorch does not have the operator, if the operator does not have an argument or has one that
/// is missing, if an argument is of another type, and PyTorch's errors.
pub fn call(operator: &str, overload: &str, arguments: &[(&str, Value)]) -> Result<Vec<Value>> {
    let called = || {
        let arguments = arguments.iter().map(|(name, value)| (*name, Given::Value(value)));
        let known = arguments.collect::<Vec<_>>();
        Operator::new(&CString::new(operator)?, &CString::new(overload)?, &[], &known)?.call(&[])
    };
    called().with_context(|| format!("{operator}.{overload}"))
}

/// An argument of a call.
#[derive(Debug)]
pub(crate) enum Given<'a> {
    Value(&'a Value),
    Tensors(Vec<Option<&'a Tensor>>),
    Ints(Vec<i64>),
}

/// An operator that was found once, with the arguments that are the same at each call.
#[derive(Debug)]
pub(crate) struct Operator {
    prepared: NonNull<c_void>,
    /// How many arguments each call gives.
    given: usize,
}

// SAFETY: an operator owns what C++ prepared, which belongs to no thread.
unsafe impl Send for Operator {}

impl Operator {
    /// Finds an operator, and converts the arguments that are known. `given` lists those that each call gives, each with
    /// a value of the type that it will have.
    ///
    /// # Errors
    /// Returns an error if libtorch does not have the operator, and if the operator has other arguments or arguments of
    /// other types.
    pub(crate) fn new(
        name: &CString,
        overload: &CString,
        given: &[(&str, Given)],
        known: &[(&str, Given)],
    ) -> Result<Operator> {
        let all = || given.iter().chain(known);
        let names = all().map(|(name, _)| CString::new(*name));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let names = names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
        let lists = all().map(|(_, value)| pointers(value)).collect::<Vec<_>>();
        let values = all().zip(&lists).map(|((_, value), list)| raw(value, list));
        let values = values.collect::<Vec<_>>();
        let mut prepared = ptr::null_mut();
        // SAFETY: the strings end with NUL, and the pointers are those of values that live over the call, which lets no
        // exception out and makes what this side then owns.
        let message = unsafe {
            let (name, overload, count) = (name.as_ptr(), overload.as_ptr(), values.len());
            let (names, values, to) = (names.as_ptr(), values.as_ptr(), &raw mut prepared);
            tch_parity_prepare(name, overload, names, values, count, given.len(), to)
        };
        // SAFETY: null or the message of the call just made, on this thread.
        unsafe { check(message) }?;
        let prepared = NonNull::new(prepared).context("C++ prepared no operator")?;
        Ok(Operator { prepared, given: given.len() })
    }

    /// Calls the operator with what each call gives, in the order of `new`.
    ///
    /// # Errors
    /// Returns an error if a value has not the type of the sample, and PyTorch's errors.
    pub(crate) fn call(&self, given: &[Given]) -> Result<Vec<Value>> {
        ensure!(given.len() == self.given, "it takes {} arguments", self.given);
        // The lists of pointers live until the call is over.
        let lists = given.iter().map(pointers).collect::<Vec<_>>();
        let values = given.iter().zip(&lists).map(|(value, list)| raw(value, list));
        let values = values.collect::<Vec<_>>();
        let mut results = Vec::<Value>::new();
        // SAFETY: `prepared` is there until this is dropped, the pointers are those of tensors and lists that `given`
        // and `lists` keep alive over the call, and `take` is given `results` alone. The call lets no exception out.
        let message = unsafe {
            let to = (&raw mut results).cast();
            tch_parity_call(self.prepared.as_ptr(), values.as_ptr(), take, to)
        };
        // SAFETY: null or the message of the call just made, on this thread.
        unsafe { check(message) }?;
        Ok(results)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // SAFETY: it was prepared by C++, and nobody else has it.
        unsafe { tch_parity_forget(self.prepared.as_ptr()) }
    }
}

/// Returns the pointers of a list of tensors.
fn pointers(value: &Given) -> Vec<*const C_tensor> {
    let pointer = |tensor: Option<&Tensor>| tensor.map_or(ptr::null(), |tensor| tensor.as_ptr());
    match value {
        Given::Value(Value::Tensors(tensors)) => {
            tensors.iter().map(|tensor| pointer(tensor.as_ref())).collect()
        }
        Given::Tensors(tensors) => tensors.iter().map(|tensor| pointer(*tensor)).collect(),
        Given::Value(_) | Given::Ints(_) => Vec::new(),
    }
}

fn raw(value: &Given, list: &[*const C_tensor]) -> RawValue {
    let (mut integer, mut number, mut imaginary) = (0, 0., 0.);
    let value = match value {
        Given::Value(value) => value,
        Given::Tensors(_) => &Value::Tensors(Vec::new()),
        Given::Ints(values) => {
            let (data, count) = (values.as_ptr().cast(), values.len());
            return RawValue { kind: 4, integer, number, imaginary, data, count };
        }
    };
    let (kind, data, count) = match value {
        Value::None => (0, ptr::null(), 0),
        Value::Tensor(tensor) => (1, tensor.as_ptr().cast(), 1),
        Value::Tensors(_) => (2, list.as_ptr().cast(), list.len()),
        Value::Int(value) => {
            integer = *value;
            (3, ptr::null(), 0)
        }
        Value::Ints(values) => (4, values.as_ptr().cast(), values.len()),
        Value::Float(value) => {
            number = *value;
            (5, ptr::null(), 0)
        }
        Value::Floats(values) => (6, values.as_ptr().cast(), values.len()),
        Value::Complex(real, imag) => {
            (number, imaginary) = (*real, *imag);
            (11, ptr::null(), 0)
        }
        Value::Bool(value) => {
            integer = (*value).into();
            (7, ptr::null(), 0)
        }
        Value::Bools(values) => (8, values.as_ptr().cast(), values.len()),
        Value::Text(text) => (9, text.as_ptr().cast(), text.len()),
        Value::Device(device) => (10, device.as_ptr().cast(), device.len()),
    };
    RawValue { kind, integer, number, imaginary, data, count }
}

/// Takes over a result. It is called by C++, and must not panic.
extern "C" fn take(to: *mut c_void, value: *const RawValue) {
    // SAFETY: `Operator::call` passes its results, which it does not touch during the call, and C++ a value that lives over
    // this call, whose tensors are new and now this side's.
    let (results, value) = unsafe { (&mut *to.cast::<Vec<Value>>(), &*value) };
    let owned = |pointer: *const c_void| {
        // SAFETY: as above.
        unsafe { Tensor::from_ptr(pointer.cast_mut().cast()) }
    };
    results.push(match value.kind {
        1 => Value::Tensor(owned(value.data)),
        2 => {
            let list = value.data.cast::<*const c_void>();
            // SAFETY: the list has `count` elements.
            let list = (0..value.count).map(|at| unsafe { *list.add(at) });
            Value::Tensors(list.map(|pointer| Some(owned(pointer))).collect())
        }
        3 => Value::Int(value.integer),
        5 => Value::Float(value.number),
        7 => Value::Bool(value.integer != 0),
        _ => Value::None,
    });
}

/// Returns the schema of an operator as PyTorch writes it, such as `aten::relu(Tensor self) -> Tensor`.
///
/// # Errors
/// Returns an error if libtorch does not have the operator.
pub(crate) fn schema(operator: &CString, overload: &CString) -> Result<String, TchError> {
    // SAFETY: the strings end with NUL; the call writes a string that lives until this thread's next call.
    let text =
        unsafe { text_of(|text| tch_parity_schema(operator.as_ptr(), overload.as_ptr(), text)) }?;
    Ok(text.to_string_lossy().into_owned())
}

/// Runs backward from several outputs at once, each with its gradient, as
/// [`torch.autograd.backward`](https://docs.pytorch.org/docs/2.13/generated/torch.autograd.backward.html) does. An
/// output of one element needs none.
///
/// # Errors
/// Returns an error if there is no output, and PyTorch's errors.
pub fn backward(outputs: &[(&Tensor, Option<&Tensor>)]) -> Result<()> {
    ensure!(!outputs.is_empty(), "no output requires a gradient");
    let roots = outputs.iter().map(|(output, _)| output.as_ptr()).collect::<Vec<_>>();
    let gradients = outputs
        .iter()
        .map(|(_, gradient)| gradient.map_or(ptr::null(), |gradient| gradient.as_ptr()));
    let gradients = gradients.collect::<Vec<_>>();
    // SAFETY: the pointers are those of tensors that `outputs` keeps alive over the call, and a null is no gradient.
    let message = unsafe { tch_parity_backward(roots.as_ptr(), gradients.as_ptr(), outputs.len()) };
    // SAFETY: null or the message of the call just made, on this thread.
    Ok(unsafe { check(message) }?)
}
