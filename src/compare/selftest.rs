//! The control of the comparison: every tensor is damaged, in one way after the other, and the comparison has to
//! see it.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use safetensors::tensor::{Dtype, TensorView};

use super::{Criterion, compare};
use crate::trace::{Trace, is_given};

/// A way to damage one tensor of a trace.
struct Damage {
    name: &'static str,
    /// The function that damages a tensor whose elements have that many bytes. It returns `None` if the tensor
    /// cannot be damaged in this way.
    how: fn(&mut Plain, usize) -> Option<()>,
}

/// A tensor that can be changed.
#[derive(Clone)]
struct Plain {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Plain {
    fn size(&self) -> usize {
        self.dtype.bitsize() / 8
    }

    fn elements(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.size())
    }

    /// Returns the offset in bytes of the first element that is not nan.
    fn first_number(&self) -> Option<usize> {
        Some(self.elements().position(|element| !is_nan(element))? * self.size())
    }

    /// Returns whether the two tensors are the same; a nan equals any nan.
    fn same(&self, other: &Plain) -> bool {
        (&self.name, self.dtype, &self.shape) == (&other.name, other.dtype, &other.shape)
            && self.elements().zip(other.elements()).all(|(a, b)| a == b || is_nan(a) && is_nan(b))
    }
}

/// Returns whether an element is nan, if it is a float32 or a float64, which are the two dtypes of a case.
fn is_nan(element: &[u8]) -> bool {
    match *element {
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]).is_nan(),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]).is_nan(),
        _ => false,
    }
}

const DAMAGES: [Damage; 8] = [
    Damage {
        name: "1 ulp",
        how: |t, _| {
            let number = t.first_number()?;
            t.bytes[number] ^= 1;
            Some(())
        },
    },
    Damage {
        name: "sign of a zero",
        how: |t, size| {
            let zero = t
                .elements()
                .position(|e| e[..size - 1].iter().all(|b| *b == 0) && e[size - 1] & 0x7f == 0)?;
            t.bytes[zero * size + size - 1] ^= 0x80;
            Some(())
        },
    },
    Damage {
        name: "a nan",
        how: |t, size| {
            let number = t.first_number()?;
            t.bytes[number..number + size].fill(0xff);
            Some(())
        },
    },
    Damage {
        name: "all zeroed",
        how: |t, _| {
            t.bytes.fill(0);
            Some(())
        },
    },
    Damage {
        name: "two elements swapped",
        how: |t, size| {
            let number = t.first_number()?;
            let first = t.bytes[number..number + size].to_vec();
            let other = t.elements().position(|element| element != first)?;
            for byte in 0..size {
                t.bytes.swap(number + byte, other * size + byte);
            }
            Some(())
        },
    },
    Damage {
        name: "transposed",
        how: |t, size| {
            let &[rows, columns] = &t.shape[..] else { return None };
            let at = |row: usize, column: usize| (row * columns + column) * size;
            // A tensor without rows may say that it has any number of columns.
            let columns = if t.bytes.is_empty() { 0 } else { columns };
            let cells = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
            t.bytes =
                cells.flat_map(|(r, c)| t.bytes[at(r, c)..at(r, c) + size].to_vec()).collect();
            t.shape.swap(0, 1);
            Some(())
        },
    },
    Damage {
        name: "another dtype",
        how: |t, size| {
            let [usual, other] = match size {
                1 => [Dtype::U8, Dtype::I8],
                2 => [Dtype::I16, Dtype::F16],
                4 => [Dtype::I32, Dtype::F32],
                8 => [Dtype::I64, Dtype::F64],
                _ => return None,
            };
            t.dtype = if t.dtype == usual { other } else { usual };
            Some(())
        },
    },
    Damage {
        name: "renamed",
        how: |t, _| {
            t.name.push('_');
            Some(())
        },
    },
];

/// Returns the damaged tensor, or `None` where `how` cannot be done or changes nothing.
fn change(tensor: &Plain, how: fn(&mut Plain, usize) -> Option<()>) -> Option<Plain> {
    let mut damaged = tensor.clone();
    how(&mut damaged, tensor.size())?;
    (!damaged.same(tensor)).then_some(damaged)
}

/// The result of one kind of damage.
#[derive(Debug)]
pub struct Control {
    /// The kind of damage.
    pub damage: &'static str,
    /// The number of tensors that were damaged so.
    pub injected: usize,
    /// The tensors whose damage the comparison did not detect.
    pub passed: Vec<String>,
}

/// Damages every tensor of a replay, in one way after the other, and compares each result with the recording,
/// bitwise: the comparison has to see the damage of every tensor.
///
/// `progress` is called after each kind of damage.
///
/// # Errors
/// Returns an error if the undamaged replay is not bitwise the recording.
pub fn selftest(
    replay: &Trace,
    recorded: &Trace,
    progress: &mut dyn FnMut(),
) -> Result<Vec<Control>> {
    let mut undamaged = compare(replay, recorded, Criterion::Bitwise);
    undamaged.tensors.retain(|tensor| !is_given(&tensor.name)); // a replay need not repeat them
    ensure!(
        undamaged.passes(),
        "without damage it is not bitwise the same here: see what `check` says"
    );
    let mut controls = Vec::new();
    let mut add = |name, damage: &dyn Fn(&Plain) -> Option<Vec<Plain>>| -> Result<()> {
        controls.push(control(name, replay, recorded, damage)?);
        progress();
        Ok(())
    };
    for damage in &DAMAGES {
        add(damage.name, &|tensor| Some(vec![change(tensor, damage.how)?]))?;
    }
    add("missing", &|_| Some(vec![]))?;
    add("extra", &|tensor| {
        let extra = Plain { name: format!("{}_", tensor.name), ..tensor.clone() };
        Some(vec![tensor.clone(), extra])
    })?;
    Ok(controls)
}

/// Puts what `damage` makes of each tensor in the place of the tensor.
fn control(
    damage: &'static str,
    replay: &Trace,
    recorded: &Trace,
    how: &dyn Fn(&Plain) -> Option<Vec<Plain>>,
) -> Result<Control> {
    let mut damaged = Trace::new();
    // The names by which each damage can be seen.
    let mut injected = Vec::new();
    for (name, view) in replay.iter() {
        let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        let tensor = Plain { name: name.to_owned(), dtype, shape, bytes };
        let replacement = how(&tensor);
        if let Some(replacement) = &replacement {
            let names = replacement.iter().map(|tensor| tensor.name.clone());
            injected.push([name.to_owned()].into_iter().chain(names).collect::<Vec<_>>());
        }
        for Plain { name, dtype, shape, bytes } in replacement.unwrap_or_else(|| vec![tensor]) {
            damaged.push_view(name, &TensorView::new(dtype, shape, &bytes)?)?;
        }
    }
    let compared = compare(&damaged, recorded, Criterion::Bitwise);
    let seen = compared.tensors.iter().filter(|tensor| !tensor.passes);
    let seen = seen.map(|tensor| &tensor.name).collect::<HashSet<_>>();
    let passed = injected.iter().filter(|names| !names.iter().any(|name| seen.contains(name)));
    let passed = passed.map(|names| names[0].clone()).collect();
    Ok(Control { damage, injected: injected.len(), passed })
}
