//! A tensor that a file holds as several: a sparse one is its indices and values, and one of complex128 is its real and
//! its imaginary part.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::trace::Trace;
use crate::trace::case_name::{IMAG, REAL};

impl Trace {
    /// Appends what [`push`](Trace::push) appends. A sparse tensor becomes two, `<name>[indices]` and `<name>[values]`,
    /// and so does one of complex128, `<name>[real]` and `<name>[imag]`.
    ///
    /// # Errors
    /// Returns the errors of [`push`](Trace::push).
    pub fn push_parts(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        parts(name, tensor)?.iter().try_for_each(|(name, part)| self.push(name, part))
    }

    /// Returns whether there is a tensor of that name. One of complex128 is two.
    pub fn contains_parts(&self, name: &str) -> bool {
        self.contains(name) || self.contains(&format!("{name}{REAL}"))
    }

    /// Returns the tensor of that name on a device. One of complex128 is put together from its parts.
    ///
    /// # Errors
    /// Returns an error if there is none, and libtorch's errors.
    pub fn tensor_of_parts(&self, name: &str, device: Device) -> Result<Tensor> {
        let real = format!("{name}{REAL}");
        if self.contains(name) || !self.contains(&real) {
            return self.tensor_on(name, device);
        }
        let imag = self.tensor_on(&format!("{name}{IMAG}"), device)?;
        Ok(Tensor::f_complex(&self.tensor_on(&real, device)?, &imag)?)
    }
}

fn parts(name: &str, tensor: &Tensor) -> Result<Vec<(String, Tensor)>> {
    if !tensor.defined() {
        return Ok(vec![(name.to_owned(), tensor.shallow_clone())]); // a trace says what is wrong with it
    }
    if tensor.is_sparse() {
        let tensor = tensor.f_coalesce()?;
        return Ok(vec![
            (format!("{name}[indices]"), tensor.f_indices()?),
            (format!("{name}[values]"), tensor.f_values()?),
        ]);
    }
    if tensor.f_kind().ok() == Some(Kind::ComplexDouble) {
        let tensor = tensor.f_detach()?;
        let [real, imag] = [tensor.f_real()?, tensor.f_imag()?];
        return Ok(vec![(format!("{name}{REAL}"), real), (format!("{name}{IMAG}"), imag)]);
    }
    Ok(vec![(name.to_owned(), tensor.shallow_clone())])
}
