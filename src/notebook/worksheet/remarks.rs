//! The remarks of a worksheet: what is notable about the run, and why it is so.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::Worksheet;
use super::blocks::{Line, line};
use super::formula::{
    Axis, CLAMPED_L, CLAMPED_L_BY_Y_HAT, H2, H2_BY_Z2, LEAST_DIVISOR, Quantity, W1, X, Y, Y_HAT,
    Y_HAT_BY_Z, Z, Z_GRADIENT, Z2, Z3,
};
use super::writer::{Index, MAX_TERMS, Writer};

/// Lists the remarks, in the order of the worksheet.
pub(super) fn remarks(sheet: &Worksheet, write: &Writer) -> Result<Vec<Line>> {
    let remarks = [
        batch(sheet, write),
        Some(gradient_of_z(sheet, write)?),
        clamped_log(sheet),
        dead_units(sheet, write, &Z2, &X, Axis::J)?,
        dead_units(sheet, write, &Z3, &H2, Axis::K)?,
        Some(kink(sheet, write)?),
        negative_zeros(sheet, write)?,
    ];
    Ok(remarks.iter().flatten().map(|text| line(text)).collect())
}

fn batch(sheet: &Worksheet, write: &Writer) -> Option<String> {
    let rows = sheet.values.size(Axis::N);
    let (sum, gradient) = (write.notation.sum("n"), write.gradient(&W1));
    (rows != 1).then(|| {
        format!(
            "BCELoss is the mean over the {rows} rows. So a row's own gradients have a factor of 1/{rows}, and \
             the gradient of a parameter, such as ${gradient}$, is the sum ${sum}$ of what the rows give."
        )
    })
}

fn gradient_of_z(sheet: &Worksheet, write: &Writer) -> Result<String> {
    let (gradient, short) = (write.gradient(&Z), write.symbols(&Z_GRADIENT)?);
    let slope = write.symbols(&Y_HAT_BY_Z.formula)?;
    if !std::ptr::eq(sheet.values.loss_derivative, &CLAMPED_L_BY_Y_HAT) {
        return Ok(format!(
            "${gradient}$ is ${short}$: the derivative of the loss has ${slope}$ as its common denominator, and \
             that of the sigmoid is ${slope}$, so that both cancel. That is why the two belong together."
        ));
    }
    let less = sheet.values.evaluate(&Y_HAT_BY_Z.formula)?.value.f_lt(LEAST_DIVISOR)?;
    let (clamped, rows) = (places(&less)?.len(), sheet.values.size(Axis::N));
    let here = match rows {
        1 => "here".to_owned(),
        _ => format!("in {clamped} of the {rows} rows"),
    };
    let saturated = format!(
        "BCELoss divides by no less than 1e-12, and {here} ${slope}$ is less: the sigmoid is saturated."
    );
    let whole = sheet.values.evaluate(&Z_GRADIENT)?.value;
    let lost = sheet.values.gradient(&Z)?.value.f_ne_tensor(&whole)?.f_logical_and(&less)?;
    let lost = places(&lost)?.len();
    let (y, y_hat) = (write.quantity(&Y), write.quantity(&Y_HAT));
    let there = if lost == clamped { "There".to_owned() } else { format!("In {lost} of these") };
    Ok(match lost {
        0 => format!(
            "{saturated} Since ${y_hat}$ is ${y}$ there, ${gradient}$ is 0 as it should be."
        ),
        _ => format!(
            "{saturated} {there} ${gradient}$ is not ${short}$ but smaller, down to 0 however wrong ${y_hat}$ is. \
             BCEWithLogitsLoss does not lose it."
        ),
    })
}

fn clamped_log(sheet: &Worksheet) -> Option<String> {
    let clamped = sheet.forward.iter().any(|row| std::ptr::eq(row.formula, &CLAMPED_L));
    clamped
        .then(|| "BCELoss takes no logarithm to be less than -100; here one would be.".to_owned())
}

/// Names the units of a layer that are off in every row, and says what follows for the gradients of the
/// parameters that lead there from `input`.
fn dead_units(
    sheet: &Worksheet,
    write: &Writer,
    z: &Quantity,
    input: &Quantity,
    axis: Axis,
) -> Result<Option<String>> {
    let values = &sheet.values;
    let off = values.quantity(z)?.value.f_le(0.)?.f_all_dim(Axis::N as i64, true)?;
    let dead = places(&off)?;
    let (count, of) = (dead.len(), values.size(axis));
    let layer = if axis == Axis::J { "first" } else { "second" };
    let numbers = dead.iter().take(MAX_TERMS as usize).map(|index| index[axis as usize] + 1);
    let numbers = numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
    let others = if count > MAX_TERMS as usize { ", …" } else { "" };
    let units = match count {
        0 => return Ok(None),
        1 => format!("Unit {numbers} of the {layer} hidden layer is dead"),
        _ => format!(
            "{count} of the {of} units of the {layer} hidden layer are dead ({numbers}{others})"
        ),
    };
    let (z, gradient) = (write.quantity(z), write.gradient(z));
    let when = if values.size(Axis::N) == 1 { "" } else { " in every row" };
    let mut text = format!(
        "{units}: there ${z}$ is 0 or less{when}, and the ReLU gives 0 and lets no gradient through. ${gradient}$ \
         is 0"
    );
    // 0 times an infinity would be nan.
    if values.quantity(input)?.value.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1 {
        text += ", and so are the gradients of the weights and biases that lead there";
        if count as i64 == of {
            text += "; nothing before this layer gets a gradient either";
        }
    }
    Ok(Some(text + "."))
}

fn kink(sheet: &Worksheet, write: &Writer) -> Result<String> {
    let mut zeros = 0;
    for z in [&Z2, &Z3] {
        let at_zero = sheet.values.quantity(z)?.value.f_eq(0.)?;
        zeros += at_zero.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    }
    let derivative = write.local(&H2_BY_Z2);
    let here = match zeros {
        0 => "here no value is exactly 0".to_owned(),
        1 => "here one value is exactly 0, and passes no gradient back".to_owned(),
        zeros => format!("here {zeros} values are exactly 0, and pass no gradient back"),
    };
    Ok(format!(
        "A ReLU has no derivative at 0. By PyTorch's convention relu'(0) = 0, which is why ${derivative}$ asks \
         for > 0 and not for ≥ 0; {here}."
    ))
}

/// Names the gradients that autograd gave as -0.
fn negative_zeros(sheet: &Worksheet, write: &Writer) -> Result<Option<String>> {
    let mut found = Vec::new();
    for row in &sheet.chain {
        let (of, run) = (row.formula.of, &row.run.tensor);
        let zero = run.f_eq(0.)?.f_logical_and(&row.run.by_hand.f_eq(0.)?)?; // not a 0 by underflow
        let negative = run.f_signbit()?.f_logical_and(&zero)?;
        let negative = negative.f_reshape(sheet.values.gradient(of)?.value.size())?;
        found.extend(places(&negative)?.iter().map(|index| write.gradient_element(of, index)));
    }
    let shown = found.iter().take(MAX_TERMS as usize).map(|name| format!("${name}$"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let (are, others) = match found.len() {
        0 => return Ok(None),
        1 => ("is", String::new()),
        count if count > MAX_TERMS as usize => {
            ("are", format!(" and {} more", count - MAX_TERMS as usize))
        }
        _ => ("are", String::new()),
    };
    Ok(Some(format!(
        "{shown}{others} {are} -0. in the run: a 0 that was multiplied by a negative number on its way back. IEEE \
         754 gives a product its sign where it is 0, too, and PyTorch prints it; it is equal to 0. (A ReLU's backward \
         selects and does not multiply, so its own zeros have no sign.)"
    )))
}

/// Lists the indices at which a grid is true.
fn places(grid: &Tensor) -> Result<Vec<Index>> {
    let flat = Vec::<i64>::try_from(grid.f_nonzero()?.f_reshape(-1)?)?;
    Ok(flat.as_chunks().0.to_vec())
}
