//! One operator as an expression of Rust: a method of tch, or a call by its name.

use anyhow::{Context, Result, bail};

use super::defaults::Defaults;
use super::flat::{self, Argument, Flat, Id, Int, Step};
use super::methods::{Method, Methods};
use super::rust::{Expression, Kind, float, kind};
use super::simple::simplify;

/// What an operator's arguments are in the source that is being written.
pub(super) trait Scope {
    /// Returns the value as an expression, and counts that it is read.
    fn read(&mut self, id: Id) -> Expression;
    /// Returns the value where a method writes to it.
    fn receiver_to_write(&mut self, id: Id) -> String;
    /// Returns a list of values that is a variable as a whole, and counts that it is read.
    fn list(&mut self, list: &[Id]) -> Option<String>;
    /// Returns a number of the source, which can be an argument of `new`.
    fn number(&self, argument: &str, at: usize, literal: String) -> String;
    /// Returns the device that the module computes on.
    fn device(&self) -> String;
    /// Notes that the source needs `call`.
    fn needs_call(&mut self);
}

/// An operator, and how it is written.
pub(super) struct Written {
    method: Option<Method>,
    /// Every argument of the method in its order, with the code of its type.
    arguments: Vec<(String, char, Argument)>,
    pub(super) step: Step,
}

/// Arguments that decide where a tensor lies, which its other arguments do as well.
const OF_PLACE: [&str; 4] = ["layout", "device", "pin_memory", "non_blocking"];

impl Written {
    /// Finds how an operator is written.
    pub(super) fn new(step: &Step, flat: &Flat, methods: &Methods) -> Result<Written> {
        let mut step = step.clone();
        simplify(&mut step, methods);
        let given = |step: &Step, name: &str| {
            step.arguments.iter().find(|(known, _)| known == name).map(|(_, a)| a.clone())
        };
        // `x + 1` is an addition of a tensor in a program, and of a number in tch.
        if given(&step, "other").is_some_and(|other| is_number(&other, flat)) {
            let (base, overload) = step.operator.split_once('.').unwrap_or((&step.operator, ""));
            let scalar = match overload {
                "Tensor" | "" => format!("{base}.Scalar"),
                "Tensor_mode" => format!("{base}.Scalar_mode"),
                "self" => format!("{base}.ScalarOther"),
                _ => step.operator.clone(),
            };
            if methods.find(&scalar).is_some() {
                step.operator = scalar;
            }
        }
        let Some(method) = methods.find(&step.operator) else {
            return Ok(Written { method: None, arguments: Vec::new(), step });
        };
        let defaults = Defaults::of(&step.operator)?;
        let mut arguments = Vec::new();
        let mut fits = true;
        for (name, code) in method.arguments() {
            let argument = match (given(&step, name), code) {
                (Some(argument), _) => argument,
                (None, 'q') => Argument::None,
                (None, _) => match defaults.of_argument(name) {
                    Some(default) => default,
                    None => {
                        fits = false;
                        Argument::None
                    }
                },
            };
            fits &= has_type(&argument, code, flat);
            arguments.push((name.to_owned(), code, argument));
        }
        let options = arguments.iter().any(|(_, code, _)| *code == 'q');
        for (name, argument) in &step.arguments {
            let known = method.receiver == Some(name)
                || arguments.iter().any(|(known, ..)| known == name)
                || OF_PLACE.contains(&name.as_str())
                || options && name == "dtype";
            let is_default = |default| is_same(&default, argument);
            fits &= known || defaults.of_argument(name).is_some_and(is_default);
        }
        Ok(Written { method: fits.then_some(method), arguments, step })
    }

    /// Returns whether the operator writes to its first argument.
    pub(super) fn writes(step: &Step) -> bool {
        let base = step.operator.split('.').next().unwrap_or_default();
        base.ends_with('_') && !base.ends_with("__")
    }

    /// Returns its name.
    pub(super) fn operator(&self) -> &str {
        &self.step.operator
    }

    /// Returns whether a method of tch calls it.
    pub(super) fn is_method(&self) -> bool {
        self.method.is_some()
    }

    /// Lists the values in the order in which the expression reads them.
    pub(super) fn order(&self) -> Vec<Id> {
        let Some(method) = self.method else {
            return self.step.arguments.iter().flat_map(|(_, argument)| argument.ids()).collect();
        };
        let receiver = self.step.arguments.iter().filter(|(name, _)| method.receiver == Some(name));
        let receiver = receiver.flat_map(|(_, argument)| argument.ids());
        receiver.chain(self.arguments.iter().flat_map(|(_, _, a)| a.ids())).collect()
    }

    /// Writes the operator.
    pub(super) fn expression(&self, flat: &Flat, scope: &mut dyn Scope) -> Result<Expression> {
        if let Some(special) = self.special(flat, scope)? {
            return Ok(special);
        }
        let Some(method) = self.method else { return self.by_name(scope) };
        let mut receiver = "Tensor::".to_owned();
        if let Some(name) = method.receiver {
            let number = self.step.arguments.iter().find(|(known, _)| known == name);
            let number = number.map(|(_, number)| number).filter(|number| is_number(number, flat));
            receiver = match number {
                // Python makes a tensor of it.
                Some(number) => {
                    let text = self.argument(name, 's', number, false, flat, scope)?;
                    let is_int = text.parse::<i64>().is_ok();
                    format!("Tensor::from({text}{})", if is_int { "i64" } else { "" })
                }
                None if Written::writes(&self.step) => scope.receiver_to_write(self.value(name)?),
                None => scope.read(self.value(name)?).value(),
            };
            receiver.push('.');
        }
        let has_tensor = self
            .arguments
            .iter()
            .any(|(_, code, argument)| "olp".contains(*code) && !argument.ids().is_empty());
        // All numbers of a method have one type.
        let has_float =
            self.arguments.iter().any(|(_, code, number)| *code == 's' && is_float(number, flat));
        let mut texts = Vec::new();
        for (name, code, argument) in &self.arguments {
            let text = self.argument(name, *code, argument, has_tensor, flat, scope);
            let text = text.with_context(|| format!("{name} of {}", self.step.operator))?;
            let is_int = has_float && *code == 's' && !is_float(argument, flat);
            texts.push(if is_int { as_float(&text) } else { text });
        }
        let kind = match method.returns {
            "tensor" => Kind::New,
            "nothing" => Kind::Nothing,
            _ => Kind::Several,
        };
        let text = format!("{receiver}{}({})", method.name, texts.join(", "));
        Ok(Expression::new(text, kind, true))
    }

    fn value(&self, name: &str) -> Result<Id> {
        match self.step.arguments.iter().find(|(known, _)| known == name) {
            Some((_, Argument::Value(id))) => Ok(*id),
            _ => bail!("{} has no tensor as its argument {name}", self.step.operator),
        }
    }

    /// Writes what tch's users write in another way than its generated methods.
    fn special(&self, flat: &Flat, scope: &mut dyn Scope) -> Result<Option<Expression>> {
        let Step { operator, arguments, .. } = &self.step;
        let base = operator.split('.').next().unwrap_or_default();
        let method = |receiver: &Expression, call: String| {
            Some(Expression::new(format!("{}.{call}", receiver.value()), Kind::New, true))
        };
        let given = |name: &str| arguments.iter().find(|(known, _)| known == name).map(|(_, a)| a);
        Ok(match (operator.as_str(), given("size"), given("dtype")) {
            ("view", Some(Argument::Ints(ints)), _) if ints.len() <= 6 => {
                let receiver = scope.read(self.value("self")?);
                let sizes = self.ints("size", ints, scope);
                method(&receiver, format!("f_view({sizes})"))
            }
            (_, _, Some(Argument::Dtype(dtype)))
                if base == "to" && given("memory_format").is_none() && given("copy").is_none() =>
            {
                let receiver = scope.read(self.value("self")?);
                let kind = kind(*dtype).with_context(|| format!("dtype {dtype}"))?;
                method(&receiver, format!("f_to_kind({kind})"))
            }
            (_, _, dtype) if base == "zeros_like" || base == "ones_like" => {
                let id = self.value("self")?;
                let from = flat.values[id].meta.as_ref().map(|meta| meta.dtype);
                let receiver = scope.read(id);
                let like = format!("f_{base}()");
                match dtype {
                    Some(Argument::Dtype(to)) if Some(*to) != from => {
                        let kind = kind(*to).with_context(|| format!("dtype {to}"))?;
                        method(&receiver, format!("{like}?.f_to_kind({kind})"))
                    }
                    _ => method(&receiver, like),
                }
            }
            _ => None,
        })
    }

    pub(super) fn ints(&self, name: &str, ints: &[Int], scope: &mut dyn Scope) -> String {
        let texts = ints.iter().enumerate().map(|(at, int)| match int {
            Int::Known(int) => scope.number(name, at, int.to_string()),
            Int::Value(id) => scope.read(*id).value(),
        });
        format!("[{}]", texts.collect::<Vec<_>>().join(", "))
    }

    fn argument(
        &self,
        name: &str,
        code: char,
        argument: &Argument,
        has_tensor: bool,
        flat: &Flat,
        scope: &mut dyn Scope,
    ) -> Result<String> {
        let none = if has_tensor { "None" } else { "None::<&Tensor>" };
        if let Argument::ByMode(sides) = argument {
            let mut side = |at, side: &Argument| match (code, side) {
                ('f' | 'F' | 's', Argument::Float(value)) => {
                    Ok(scope.number(name, at, float(*value)))
                }
                ('i' | 'I' | 's', Argument::Int(int)) => {
                    Ok(scope.number(name, at, int.to_string()))
                }
                _ => self.argument(name, code, side, has_tensor, flat, scope),
            };
            let (train, eval) = (side(0, &sides.0)?, side(1, &sides.1)?);
            let one_type = |text: String, side: &Argument| {
                let is_int = is_float(argument, flat) && !is_float(side, flat);
                if is_int { as_float(&text) } else { text }
            };
            return Ok(by_mode(&one_type(train, &sides.0), &one_type(eval, &sides.1)));
        }
        Ok(match (code, argument) {
            ('q', _) => {
                let result = self.step.results.ids().first().copied();
                let meta = result.and_then(|id| flat.values[id].meta.as_ref());
                let kind = kind(meta.context("a tensor of unknown dtype")?.dtype);
                format!("({}, {})", kind.context("an unknown dtype")?, scope.device())
            }
            ('t', Argument::Value(id)) => scope.read(*id).reference(),
            ('o', Argument::Value(id)) => format!("Some({})", scope.read(*id).reference()),
            ('o', Argument::None) => none.to_owned(),
            ('l', Argument::List(list)) => {
                if let Some(whole) = scope.list(&argument.ids()) {
                    return Ok(whole);
                }
                let texts = list.iter().flatten().map(|id| scope.read(*id).reference());
                format!("&[{}]", texts.collect::<Vec<_>>().join(", "))
            }
            ('p', Argument::List(list)) => {
                let texts = list.iter().map(|id| match id {
                    Some(id) => format!("Some({})", scope.read(*id).reference()),
                    None => "None".to_owned(),
                });
                format!("&[{}]", texts.collect::<Vec<_>>().join(", "))
            }
            ('I', Argument::Int(i64::MAX)) => "None".to_owned(),
            ('r', Argument::Int(reduction)) => match reduction {
                0 => "tch::Reduction::None".to_owned(),
                1 => "tch::Reduction::Mean".to_owned(),
                _ => "tch::Reduction::Sum".to_owned(),
            },
            ('f' | 'F', Argument::Int(int)) => scope.number(name, 0, float(*int as f64)),
            ('i' | 'I' | 's', Argument::Int(int)) => scope.number(name, 0, int.to_string()),
            ('i' | 'I' | 's', Argument::Value(id)) => scope.read(*id).value(),
            ('f' | 'F', Argument::Value(id)) => scope.read(*id).as_float(),
            ('f' | 'F' | 's', Argument::Float(value)) => scope.number(name, 0, float(*value)),
            ('b' | 's', Argument::Bool(bool)) if code == 'b' => bool.to_string(),
            ('s', Argument::Bool(bool)) => i64::from(*bool).to_string(),
            ('n' | 'N', Argument::Ints(ints)) if ints.is_empty() => "[0i64; 0]".to_owned(),
            ('n', Argument::Ints(ints)) => self.ints(name, ints, scope),
            ('N', Argument::Ints(ints)) => {
                let list = self.ints(name, ints, scope);
                match ints.len() {
                    1 => list.trim_matches(['[', ']']).to_owned(),
                    _ => format!("&{list}[..]"),
                }
            }
            ('N', Argument::None) => "None::<i64>".to_owned(),
            ('d', Argument::Floats(floats)) => {
                let texts = floats.iter().map(|value| float(*value)).collect::<Vec<_>>();
                format!("[{}]", texts.join(", "))
            }
            ('z', Argument::Text(text)) => format!("{text:?}"),
            ('k' | 'K', Argument::Dtype(dtype)) => {
                kind(*dtype).with_context(|| format!("dtype {dtype}"))?
            }
            ('I' | 'F' | 'K', Argument::None) => "None".to_owned(),
            ('D', _) => scope.device(),
            _ => bail!("{argument:?} cannot be written"),
        })
    }
}

fn is_number(argument: &Argument, flat: &Flat) -> bool {
    match argument {
        Argument::ByMode(sides) => is_number(&sides.0, flat) && is_number(&sides.1, flat),
        Argument::Value(id) => flat.values[*id].kind != flat::Kind::Tensor,
        other => matches!(other, Argument::Int(_) | Argument::Float(_)),
    }
}

/// Returns whether two arguments are the same, where `1` and `1.` are the same number.
fn is_same(a: &Argument, b: &Argument) -> bool {
    match (a, b) {
        (Argument::Int(int), Argument::Float(float))
        | (Argument::Float(float), Argument::Int(int)) => *int as f64 == *float,
        _ => a == b,
    }
}

/// Returns whether an argument is a float, in either mode.
fn is_float(argument: &Argument, flat: &Flat) -> bool {
    match argument {
        Argument::ByMode(sides) => is_float(&sides.0, flat) || is_float(&sides.1, flat),
        Argument::Value(id) => flat.values[*id].kind == flat::Kind::Float,
        other => matches!(other, Argument::Float(_)),
    }
}

/// Writes an integer as a float.
fn as_float(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(int) => float(int as f64),
        Err(_) if text.contains(' ') => format!("({text}) as f64"),
        Err(_) => format!("{text} as f64"),
    }
}

/// Writes what is one expression in `train()` and another one in `eval()`.
pub(super) fn by_mode(train: &str, eval: &str) -> String {
    match (train, eval) {
        ("true", "false") => "train".to_owned(),
        ("false", "true") => "!train".to_owned(),
        _ => format!("if train {{ {train} }} else {{ {eval} }}"),
    }
}

/// Returns whether a method's argument can be what a program has.
fn has_type(argument: &Argument, code: char, flat: &Flat) -> bool {
    if let Argument::ByMode(sides) = argument {
        return has_type(&sides.0, code, flat) && has_type(&sides.1, code, flat);
    }
    let is = |kind| matches!(argument, Argument::Value(id) if flat.values[*id].kind == kind);
    match code {
        't' => is(flat::Kind::Tensor),
        'o' => is(flat::Kind::Tensor) || *argument == Argument::None,
        's' => is_number(argument, flat) || matches!(argument, Argument::Bool(_)),
        'd' => matches!(argument, Argument::Floats(_)),
        'l' | 'p' => matches!(argument, Argument::List(_)),
        'n' => matches!(argument, Argument::Ints(_)),
        'N' => matches!(argument, Argument::Ints(_) | Argument::None),
        'f' => is_number(argument, flat),
        'i' => matches!(argument, Argument::Int(_)) || is(flat::Kind::Int),
        'b' => matches!(argument, Argument::Bool(_)),
        'z' => matches!(argument, Argument::Text(_)),
        'k' => matches!(argument, Argument::Dtype(_)),
        _ => true,
    }
}
