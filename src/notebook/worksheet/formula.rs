//! The notebook's formulas as data, from which they are evaluated, written and checked.

use Axis::{I, J, K, N};
use Expr::{
    Difference, Gradient, Local, Log, Max, Negative, Number, Over, Positive, Product, Quotient,
    Share, Sigmoid, Sum, Value,
};

/// A dimension of a quantity. The variants stand in the order in which PyTorch stores the dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// The rows of the batch.
    N,
    /// The units of the second hidden layer.
    K,
    /// The units of the first hidden layer.
    J,
    /// The inputs.
    I,
}

impl Axis {
    /// Returns the letter of the axis's index in the formulas.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            N => "n",
            K => "k",
            J => "j",
            I => "i",
        }
    }
}

/// All axes, in the order of the dimensions of a [`Grid`](super::evaluate::Grid).
pub(crate) const AXES: [Axis; 4] = [N, K, J, I];

/// A tensor of the run, as the formulas name it.
#[derive(Debug)]
pub(crate) struct Quantity {
    pub(crate) letter: &'static str,
    pub(crate) layer: Option<u8>,
    /// The axes, in the order in which the notebook writes their indices.
    pub(crate) axes: &'static [Axis],
    /// The section of the run's trace that has the tensor: `forward`, `param` or `input`.
    pub(crate) section: &'static str,
    /// The name of the tensor in its section, and of its gradient in the section `grad`.
    pub(crate) name: &'static str,
}

const fn intermediate(
    name: &'static str,
    letter: &'static str,
    layer: Option<u8>,
    axes: &'static [Axis],
) -> Quantity {
    Quantity { letter, layer, axes, section: "forward", name }
}

const fn parameter(
    name: &'static str,
    letter: &'static str,
    layer: u8,
    axes: &'static [Axis],
) -> Quantity {
    Quantity { letter, layer: Some(layer), axes, section: "param", name }
}

pub(crate) static X: Quantity =
    Quantity { letter: "x", layer: None, axes: &[N, I], section: "input", name: "x" };
pub(crate) static Z2: Quantity = intermediate("z2", "z", Some(2), &[N, J]);
pub(crate) static H2: Quantity = intermediate("h2", "h", Some(2), &[N, J]);
pub(crate) static Z3: Quantity = intermediate("z3", "z", Some(3), &[N, K]);
pub(crate) static H3: Quantity = intermediate("h3", "h", Some(3), &[N, K]);
pub(crate) static Z: Quantity = intermediate("z", "z", None, &[N]);
pub(crate) static Y_HAT: Quantity = intermediate("h", "ŷ", None, &[N]);
pub(crate) static L: Quantity = intermediate("L", "L", None, &[]);
pub(crate) static Y: Quantity =
    Quantity { letter: "y", layer: None, axes: &[N], section: "input", name: "y" };
pub(crate) static W1: Quantity = parameter("fc1.weight", "w", 1, &[I, J]);
pub(crate) static B1: Quantity = parameter("fc1.bias", "b", 1, &[J]);
pub(crate) static W2: Quantity = parameter("fc2.weight", "w", 2, &[J, K]);
pub(crate) static B2: Quantity = parameter("fc2.bias", "b", 2, &[K]);
pub(crate) static W3: Quantity = parameter("fc3.weight", "w", 3, &[K]);
pub(crate) static B3: Quantity = parameter("fc3.bias", "b", 3, &[]);

/// All quantities that a run has values of.
pub(crate) static QUANTITIES: [&Quantity; 15] =
    [&X, &Z2, &H2, &Z3, &H3, &Z, &Y_HAT, &L, &Y, &W1, &B1, &W2, &B2, &W3, &B3];

/// The right-hand side of a formula, or a part of it. Products associate to the left. Their last factor is the
/// one that adds the most axes, so that the product of the others stays small.
#[derive(Debug)]
pub(crate) enum Expr {
    Number(f64),
    /// The value of a quantity in the run.
    Value(&'static Quantity),
    /// The gradient of the loss with respect to a quantity.
    Gradient(&'static Quantity),
    /// A local derivative, with the value that its formula gives.
    Local(&'static LocalDerivative),
    Negative(&'static Expr),
    Sum(&'static [Expr]),
    Difference(&'static [Expr; 2]),
    Product(&'static [Expr]),
    Quotient(&'static [Expr; 2]),
    /// The sum over an axis.
    Over(Axis, &'static Expr),
    /// The expression divided by the number of rows of the batch.
    Share(&'static Expr),
    Max(&'static [Expr; 2]),
    /// The indicator of positive values: 1 where the expression is above 0, else 0.
    Positive(&'static Expr),
    Sigmoid(&'static Expr),
    Log(&'static Expr),
}

/// The formula of a quantity or, in the chain rule, of the gradient of the loss with respect to that quantity.
#[derive(Debug)]
pub(crate) struct Equation {
    pub(crate) of: &'static Quantity,
    pub(crate) formula: Expr,
}

/// The partial derivative of a quantity with respect to one that it is directly computed from.
#[derive(Debug)]
pub(crate) struct LocalDerivative {
    pub(crate) of: &'static Quantity,
    pub(crate) by: &'static Quantity,
    pub(crate) formula: Expr,
    /// A quantity that has the same shape as the values of the derivative.
    pub(crate) like: &'static Quantity,
}

const ONE_LESS_Y: Expr = Difference(&[Number(1.), Value(&Y)]);
const ONE_LESS_Y_HAT: Expr = Difference(&[Number(1.), Value(&Y_HAT)]);

/// The statement that the forward pass used the input x. It is no formula of the notebook's, and is shown only
/// where the run disagrees with it.
pub(crate) static COPY: Equation =
    Equation { of: &Quantity { section: "forward", ..X }, formula: Value(&X) };

pub(crate) static FORWARD: [Equation; 7] = [
    Equation { of: &Z2, formula: Sum(&[Over(I, &Product(&[Value(&W1), Value(&X)])), Value(&B1)]) },
    Equation { of: &H2, formula: Max(&[Value(&Z2), Number(0.)]) },
    Equation { of: &Z3, formula: Sum(&[Over(J, &Product(&[Value(&W2), Value(&H2)])), Value(&B2)]) },
    Equation { of: &H3, formula: Max(&[Value(&Z3), Number(0.)]) },
    Equation { of: &Z, formula: Sum(&[Over(K, &Product(&[Value(&W3), Value(&H3)])), Value(&B3)]) },
    Equation { of: &Y_HAT, formula: Sigmoid(&Value(&Z)) },
    Equation {
        of: &L,
        formula: Negative(&Share(&Over(
            N,
            &Sum(&[
                Product(&[Value(&Y), Log(&Value(&Y_HAT))]),
                Product(&[ONE_LESS_Y, Log(&ONE_LESS_Y_HAT)]),
            ]),
        ))),
    },
];

/// The lower bound to which BCELoss clamps a logarithm
/// ([its documentation](https://docs.pytorch.org/docs/2.13/generated/torch.nn.BCELoss.html)).
pub(crate) const LEAST_LOG: f64 = -100.;

/// The lower bound to which the backward of BCELoss clamps its divisor; it is a float32 in float64 runs, too
/// ([Loss.cpp](https://github.com/pytorch/pytorch/blob/v2.13.0/aten/src/ATen/native/Loss.cpp)).
pub(crate) const LEAST_DIVISOR: f64 = 1e-12f32 as f64;

/// The formula of the loss where a logarithm is clamped, so that the notebook's formula does not hold.
pub(crate) static CLAMPED_L: Equation = Equation {
    of: &L,
    formula: Negative(&Share(&Over(
        N,
        &Sum(&[
            Product(&[Value(&Y), Max(&[Log(&Value(&Y_HAT)), Number(LEAST_LOG)])]),
            Product(&[ONE_LESS_Y, Max(&[Log(&ONE_LESS_Y_HAT), Number(LEAST_LOG)])]),
        ]),
    ))),
};

pub(crate) static Z2_BY_W1: LocalDerivative =
    LocalDerivative { of: &Z2, by: &W1, formula: Value(&X), like: &X };
pub(crate) static Z2_BY_X: LocalDerivative =
    LocalDerivative { of: &Z2, by: &X, formula: Value(&W1), like: &W1 };
pub(crate) static H2_BY_Z2: LocalDerivative =
    LocalDerivative { of: &H2, by: &Z2, formula: Positive(&Value(&Z2)), like: &Z2 };
pub(crate) static Z3_BY_W2: LocalDerivative =
    LocalDerivative { of: &Z3, by: &W2, formula: Value(&H2), like: &H2 };
pub(crate) static Z3_BY_H2: LocalDerivative =
    LocalDerivative { of: &Z3, by: &H2, formula: Value(&W2), like: &W2 };
pub(crate) static H3_BY_Z3: LocalDerivative =
    LocalDerivative { of: &H3, by: &Z3, formula: Positive(&Value(&Z3)), like: &Z3 };
pub(crate) static Z_BY_W3: LocalDerivative =
    LocalDerivative { of: &Z, by: &W3, formula: Value(&H3), like: &H3 };
pub(crate) static Z_BY_H3: LocalDerivative =
    LocalDerivative { of: &Z, by: &H3, formula: Value(&W3), like: &W3 };
pub(crate) static Y_HAT_BY_Z: LocalDerivative = LocalDerivative {
    of: &Y_HAT,
    by: &Z,
    formula: Product(&[Value(&Y_HAT), ONE_LESS_Y_HAT]),
    like: &Y_HAT,
};
pub(crate) static L_BY_Y_HAT: LocalDerivative = LocalDerivative {
    of: &L,
    by: &Y_HAT,
    formula: Negative(&Share(&Difference(&[
        Quotient(&[Value(&Y), Value(&Y_HAT)]),
        Quotient(&[ONE_LESS_Y, ONE_LESS_Y_HAT]),
    ]))),
    like: &Y_HAT,
};

/// The formula of the derivative of the loss where its divisor is clamped.
pub(crate) static CLAMPED_L_BY_Y_HAT: LocalDerivative = LocalDerivative {
    of: &L,
    by: &Y_HAT,
    formula: Share(&Quotient(&[
        Difference(&[Value(&Y_HAT), Value(&Y)]),
        Max(&[Product(&[Value(&Y_HAT), ONE_LESS_Y_HAT]), Number(LEAST_DIVISOR)]),
    ])),
    like: &Y_HAT,
};

pub(crate) static BACKWARD: [&LocalDerivative; 10] = [
    &Z2_BY_W1,
    &Z2_BY_X,
    &H2_BY_Z2,
    &Z3_BY_W2,
    &Z3_BY_H2,
    &H3_BY_Z3,
    &Z_BY_W3,
    &Z_BY_H3,
    &Y_HAT_BY_Z,
    &L_BY_Y_HAT,
];

/// The derivative of z with respect to the output of the first hidden layer, through the second one.
const TO_H2: Expr = Over(K, &Product(&[Local(&Z_BY_H3), Local(&H3_BY_Z3), Local(&Z3_BY_H2)]));

/// The gradients of the loss by the chain rule, in the order of the backward pass.
pub(crate) static CHAIN: [Equation; 12] = [
    Equation { of: &Z, formula: Product(&[Gradient(&Y_HAT), Local(&Y_HAT_BY_Z)]) },
    Equation { of: &W3, formula: Over(N, &Product(&[Gradient(&Z), Local(&Z_BY_W3)])) },
    Equation { of: &B3, formula: Over(N, &Gradient(&Z)) },
    Equation { of: &H3, formula: Product(&[Gradient(&Z), Local(&Z_BY_H3)]) },
    Equation { of: &Z3, formula: Product(&[Gradient(&Z), Local(&Z_BY_H3), Local(&H3_BY_Z3)]) },
    Equation {
        of: &W2,
        formula: Over(
            N,
            &Product(&[Gradient(&Z), Local(&Z_BY_H3), Local(&H3_BY_Z3), Local(&Z3_BY_W2)]),
        ),
    },
    Equation {
        of: &B2,
        formula: Over(N, &Product(&[Gradient(&Z), Local(&Z_BY_H3), Local(&H3_BY_Z3)])),
    },
    Equation { of: &H2, formula: Product(&[Gradient(&Z), TO_H2]) },
    Equation { of: &Z2, formula: Product(&[Gradient(&Z), TO_H2, Local(&H2_BY_Z2)]) },
    Equation {
        of: &W1,
        formula: Over(N, &Product(&[Gradient(&Z), TO_H2, Local(&H2_BY_Z2), Local(&Z2_BY_W1)])),
    },
    Equation { of: &B1, formula: Over(N, &Product(&[Gradient(&Z), TO_H2, Local(&H2_BY_Z2)])) },
    Equation {
        of: &X,
        formula: Product(&[
            Gradient(&Z),
            Over(J, &Product(&[TO_H2, Local(&H2_BY_Z2), Local(&Z2_BY_X)])),
        ]),
    },
];

/// The simplified formula of the gradient with respect to `z`, which holds where nothing is clamped.
pub(crate) static Z_GRADIENT: Expr = Share(&Difference(&[Value(&Y_HAT), Value(&Y)]));
