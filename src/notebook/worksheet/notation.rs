//! The notation of formulas: Unicode for a terminal, or LaTeX.

use crate::repr::float;

/// A notation for formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Unicode,
    Latex,
}

use Notation::{Latex, Unicode};

impl Notation {
    fn either(self, unicode: &'static str, latex: &'static str) -> &'static str {
        if self == Unicode { unicode } else { latex }
    }

    /// Writes `letter` with its layer as superscript and `below` as subscript.
    pub(crate) fn symbol(self, letter: &str, layer: Option<u8>, below: &str) -> String {
        let layer = layer.map_or(String::new(), |layer| format!("({layer})"));
        match self {
            Unicode => format!("{letter}{}{}", raised(&layer), lowered(below)),
            Latex => {
                // GitHub would take the underscores in \hat{y}_{n} as emphasis.
                let letter = if letter == "ŷ" { r"\hat y" } else { letter };
                let script = |sign: &str, text: &str| match text {
                    "" => String::new(),
                    text => format!("{sign}{{{text}}}"),
                };
                format!("{letter}{}{}", script("_", below), script("^", &layer))
            }
        }
    }

    pub(crate) fn derivative(self, of: &str, by: &str) -> String {
        match self {
            Unicode => format!("∂{of}/∂{by}"),
            Latex => format!(r"\frac{{\partial {of}}}{{\partial {by}}}"),
        }
    }

    /// Writes the sign of a sum over `index`.
    pub(crate) fn sum(self, index: &str) -> String {
        match self {
            Unicode => format!("Σ{}", lowered(index)),
            Latex => format!(r"\sum_{{{index}}}"),
        }
    }

    /// Writes a fraction. In Unicode, both operands have to be single symbols or in parentheses.
    pub(crate) fn fraction(self, above: &str, below: &str) -> String {
        match self {
            Unicode => format!("{above}/{below}"),
            Latex => format!(r"\frac{{{above}}}{{{below}}}"),
        }
    }

    pub(crate) fn max(self, a: &str, b: &str) -> String {
        match self {
            Unicode => format!("max{{{a}, {b}}}"),
            // GitHub removes the backslash of \{.
            Latex => format!(r"\max\lbrace {a}, {b}\rbrace"),
        }
    }

    pub(crate) fn positive(self, of: &str) -> String {
        match self {
            Unicode => format!("1({of} > 0)"),
            Latex => format!(r"\mathbb{{1}}({of} \gt 0)"),
        }
    }

    pub(crate) fn sigmoid(self, of: &str) -> String {
        format!("{}({of})", self.either("σ", r"\sigma"))
    }

    pub(crate) fn log(self, of: &str) -> String {
        format!("{} {of}", self.either("log", r"\log"))
    }

    pub(crate) fn minus(self) -> &'static str {
        self.either("−", "-")
    }

    pub(crate) fn times(self) -> &'static str {
        self.either(" · ", r" \cdot ")
    }

    pub(crate) fn dots(self) -> &'static str {
        self.either("…", r"\cdots")
    }

    pub(crate) fn parenthesized(self, text: &str) -> String {
        self.between("(", text, ")")
    }

    pub(crate) fn bracketed(self, text: &str) -> String {
        self.between("[", text, "]")
    }

    /// Writes `text` between delimiters that are as high as it is.
    fn between(self, open: &str, text: &str, close: &str) -> String {
        match [r"\frac", r"\sum"].iter().any(|high| text.contains(high)) {
            true => format!(r"\left{open}{text}\right{close}"),
            false => format!("{open}{text}{close}"),
        }
    }

    /// Writes a number with at most four decimals.
    pub(crate) fn number(self, value: f64) -> String {
        let text = number(value);
        match (self, text.split_once('e')) {
            (Unicode, Some((mantissa, exponent))) => {
                format!("{}e{exponent}", mantissa.replace('-', "−"))
            }
            (Unicode, None) => text.replace('-', "−"),
            (Latex, Some((mantissa, exponent))) => {
                let exponent = exponent.trim_start_matches('+').parse::<i32>().unwrap_or_default();
                match mantissa {
                    "1" => format!("10^{{{exponent}}}"),
                    mantissa => format!(r"{mantissa} \times 10^{{{exponent}}}"),
                }
            }
            (Latex, None) => text.replace("inf", r"\infty").replace("nan", r"\text{nan}"),
        }
    }
}

/// Writes an integer without decimals and any other number with four of them, very small and very large ones in
/// scientific notation.
fn number(value: f64) -> String {
    let size = value.abs();
    if value == value.round() && size < 1e5 {
        format!("{value:.0}")
    } else if value.is_finite() && !(1e-4..1e5).contains(&size) {
        float::scientific(value).replace(".0000e", "e")
    } else {
        float::fixed(value)
    }
}

fn raised(text: &str) -> String {
    let raised = |c| match c {
        '(' => '⁽',
        ')' => '⁾',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => c,
    };
    text.chars().map(raised).collect()
}

fn lowered(text: &str) -> String {
    let lowered = |c| match c {
        'i' => 'ᵢ',
        'j' => 'ⱼ',
        'k' => 'ₖ',
        'n' => 'ₙ',
        ',' => '‚',
        c => c.to_digit(10).and_then(|digit| char::from_u32('₀' as u32 + digit)).unwrap_or(c),
    };
    text.chars().map(lowered).collect()
}
