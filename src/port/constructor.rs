//! What makes the fields of a class in its `new`.

use anyhow::Result;

use super::Port;
use super::class::{Class, Field, FieldOf};
use super::fields::RustField;
use super::identifier::snake;
use super::number::{Hole, Number, Place};
use super::rust::float;
use super::series::{self, Form};
use super::units::Sequence;
use super::variables::zeros;

impl Port {
    /// Writes what makes a field.
    pub(super) fn constructor(&self, class: &Class, field: &RustField) -> Result<String> {
        if let ([one], false) = (&field.parts[..], field.is_list) {
            let made = self.part(class, one, None)?;
            return Ok(match class.has(&one.path) {
                Some(has) => format!("{}.then(|| {made})", class.arguments[has].hint),
                None => made,
            });
        }
        let first = self.part(class, &field.parts[0], Some("i"))?;
        let count = field.parts.len();
        let all_same = field.parts.iter().map(|part| self.part(class, part, Some("i")));
        if count > 1 && all_same.collect::<Result<Vec<_>>>()?.iter().all(|text| *text == first) {
            return Ok(format!("(0..{count}).map(|i| {first}).collect()"));
        }
        let parts = field.parts.iter().map(|part| self.part(class, part, None));
        Ok(format!("vec![{}]", parts.collect::<Result<Vec<_>>>()?.join(", ")))
    }

    /// Writes what makes a part of a module. `index` stands for the number at the end of its path.
    fn part(&self, class: &Class, field: &Field, index: Option<&str>) -> Result<String> {
        let path = &field.path;
        match &field.what {
            FieldOf::Module(body) => {
                let count = self.classes.numbers[*body].len();
                let number = |at: usize| given(class, path, (at, 0), self.number(*body, at));
                let numbers = (0..count).map(number);
                let place = match index {
                    Some(index) => {
                        let base = path.rsplit_once('.').map_or("", |(base, _)| base);
                        format!("{} / {index}", path_of(base))
                    }
                    None => path_of(path),
                };
                Ok(self.made(*body, &place, &numbers.collect::<Vec<_>>()))
            }
            FieldOf::List { modules, bodies } => {
                // The lists of a list have texts of their own.
                Ok(self.list(class, path, modules, bodies))
            }
            FieldOf::Variable(at) => self.made_variable(class, path, *at),
        }
    }

    /// Returns a number of a module: where it does not have it, that of another one.
    fn number(&self, body: usize, at: usize) -> &Number {
        match &self.classes.numbers[body][at] {
            Number::Any => {
                let of = &self.classes.classes[self.classes.of_body[body]];
                &of.arguments[at].number
            }
            number => number,
        }
    }

    /// Writes what makes a module of numbers.
    fn made(&self, body: usize, place: &str, numbers: &[String]) -> String {
        let of = &self.classes.classes[self.classes.of_body[body]];
        if let Some(layer) = &of.layer {
            return layer.constructor(place, numbers);
        }
        let has_path = !of.rust_fields.is_empty();
        let mut given = has_path.then(|| place.to_owned()).into_iter().collect::<Vec<_>>();
        let named = |hole: &Hole| of.config.is_some() && hole.number.is_one();
        let numbers = of.arguments.iter().zip(numbers);
        if let Some(config) = &of.config {
            let fields = numbers.clone().filter(|(hole, _)| named(hole)).map(|(hole, number)| {
                let name = &hole.hint;
                if name == number { name.clone() } else { format!("{name}: {number}") }
            });
            given.push(format!("{config} {{ {} }}", fields.collect::<Vec<_>>().join(", ")));
        }
        given.extend(numbers.filter(|(hole, _)| !named(hole)).map(|(_, number)| number.clone()));
        format!("{}::new({})", of.name, given.join(", "))
    }

    fn made_variable(&self, class: &Class, full: &str, at: usize) -> Result<String> {
        let variable = &self.flat.variables[at];
        let sizes = variable
            .meta
            .sizes
            .iter()
            .enumerate()
            .map(|(at, size)| given(class, full, (at, 0), &Number::Int(size.unwrap_or(0))));
        let (path, name) = match full.rsplit_once('.') {
            Some((path, name)) => (format!("({})", path_of(path)), name),
            None => ("p".to_owned(), full),
        };
        let sizes = sizes.collect::<Vec<_>>().join(", ");
        let value = self.value_of(class, full);
        let value = value.map(|value| format!("{value}.to_device(p.device())"));
        // What no checkpoint has would be missing in one that a `VarStore` loads.
        match (value, variable.persistent) {
            (Some(value), true) => Ok(format!("{path}.add({name:?}, {value}, false)")),
            (Some(value), false) => Ok(value),
            (None, true) => self.variable(variable, &path, name, &sizes, class),
            (None, false) => zeros(variable, &sizes),
        }
    }

    /// Writes what makes the modules of a list.
    fn list(&self, class: &Class, path: &str, modules: &Sequence, bodies: &[usize]) -> String {
        let none = Vec::new();
        let forms = class.lists.get(path).unwrap_or(&none);
        let series = (0..forms.len()).map(|at| {
            let numbers = bodies.iter().map(|body| self.classes.numbers[*body][at].clone());
            let numbers = series::filled(&numbers.collect::<Vec<_>>()).into_iter();
            let model = |number| match number {
                Number::Any => self.number(bodies[0], at).clone(),
                number => number,
            };
            numbers.map(model).collect::<Vec<_>>()
        });
        let series = series.collect::<Vec<_>>();
        if forms.contains(&Form::Each) {
            let calls = bodies.iter().enumerate().map(|(n, body)| {
                let number = |at: usize| given(class, path, (at, n), &series[at][n]);
                let numbers = (0..forms.len()).map(number);
                self.made(*body, &path_of(&modules.path(n)), &numbers.collect::<Vec<_>>())
            });
            return format!("vec![{}]", calls.collect::<Vec<_>>().join(", "));
        }
        let first = bodies[0];
        let slices = (0..forms.len()).filter(|at| forms[*at] == Form::Slice).collect::<Vec<_>>();
        let slice = |at: usize| argument(class, path, (at, 0));
        let given_slices = slices.iter().filter_map(|at| slice(*at)).collect::<Vec<_>>();
        let hints = &self.classes.classes[self.classes.of_body[first]].arguments;
        let index = if slices.is_empty() { "i" } else { "i as i64" };
        let numbers = forms.iter().enumerate().map(|(at, form)| match form {
            Form::Same | Form::Each => given(class, path, (at, 0), &series[at][0]),
            Form::Linear => {
                let start = given(class, path, (at, 0), &series[at][0]);
                let step = match series[at][..] {
                    [Number::Int(first), Number::Int(second), ..] => second - first,
                    _ => 0,
                };
                linear(&start, &given(class, path, (at, 1), &Number::Int(step)), index)
            }
            Form::First => {
                let start = given(class, path, (at, 0), &series[at][0]);
                let second = series[at].get(1).unwrap_or(&series[at][0]);
                let others = given(class, path, (at, 1), second);
                match (&*start, &*others) {
                    ("false", "true") => "i > 0".to_owned(),
                    ("true", "false") => "i == 0".to_owned(),
                    _ => format!("if i == 0 {{ {start} }} else {{ {others} }}"),
                }
            }
            Form::Slice => match slice(at) {
                Some(slice) => format!("{slice}[i]"),
                None => snake(&hints[at].hint),
            },
        });
        let numbers = numbers.collect::<Vec<_>>();
        let made = self.made(first, &element(modules), &numbers);
        if given_slices.is_empty() && !slices.is_empty() {
            let tuple = |parts: Vec<String>| match &parts[..] {
                [one] => one.clone(),
                _ => format!("({})", parts.join(", ")),
            };
            let rows = (0..bodies.len())
                .map(|row| tuple(slices.iter().map(|at| literal(&series[*at][row])).collect()));
            let rows = rows.collect::<Vec<_>>().join(", ");
            let names = tuple(slices.iter().map(|at| snake(&hints[*at].hint)).collect());
            return match made.contains(" i") || made.contains("{i}") {
                true => {
                    format!("[{rows}].into_iter().enumerate().map(|(i, {names})| {made}).collect()")
                }
                false => format!("[{rows}].into_iter().map(|{names}| {made}).collect()"),
            };
        }
        let count = class.argument_at.get(&Place::Count { field: path.to_owned() });
        let count = match (given_slices.first(), count) {
            (Some(slice), _) => format!("{slice}.len()"),
            (None, Some(argument)) => class.arguments[*argument].hint.clone(),
            (None, None) => bodies.len().to_string(),
        };
        if count == "1" {
            let made = self.made(first, &path_of(path), &numbers);
            return format!("vec![{made}]");
        }
        let i = if self.made(first, "", &numbers).contains(" i") || made.contains("p / ") {
            "i"
        } else {
            "_"
        };
        format!("(0..{count}).map(|{i}| {made}).collect()")
    }
}

/// Writes the path of a part.
fn path_of(path: &str) -> String {
    let parts = path.split('.').filter(|part| !part.is_empty());
    let parts = parts.map(|part| match part.parse::<u32>() {
        Ok(number) => format!(" / {number}"),
        Err(_) => format!(" / {part:?}"),
    });
    format!("&p{}", parts.collect::<String>())
}

/// Writes the path of the module `i` of a list.
fn element(modules: &Sequence) -> String {
    let (base, name) = modules.stem.rsplit_once('.').unwrap_or(("", &modules.stem));
    let number = match modules.start {
        0 => "i".to_owned(),
        start => format!("i + {start}"),
    };
    let last = match (name, modules.start) {
        ("", 0) => number,
        ("", _) => format!("({number})"),
        (name, 0) => format!("format!(\"{name}{{i}}\")"),
        (name, _) => format!("format!(\"{name}{{}}\", {number})"),
    };
    format!("{} / {last}", path_of(base))
}

/// Writes the number that grows by a step with each module of a list.
fn linear(start: &str, step: &str, index: &str) -> String {
    let (sign, step) = match step.strip_prefix('-') {
        Some(step) => ('-', step),
        None => ('+', step),
    };
    let grown = if step == "1" { index.to_owned() } else { format!("{step} * {index}") };
    match (start, sign) {
        ("0", '+') => grown,
        _ => format!("{start} {sign} {grown}"),
    }
}

/// Returns the argument of `new` that a number of a field is.
fn argument<'a>(class: &'a Class, field: &str, (at, part): (usize, usize)) -> Option<&'a str> {
    let place = Place::New { field: field.to_owned(), at, part };
    let argument = class.argument_at.get(&place)?;
    Some(&class.arguments[*argument].hint)
}

/// Writes a number of a field: the argument of `new` that it is, or itself.
fn given(class: &Class, field: &str, place: (usize, usize), number: &Number) -> String {
    argument(class, field, place).map_or_else(|| literal(number), str::to_owned)
}

fn literal(number: &Number) -> String {
    match number {
        Number::Int(int) => int.to_string(),
        Number::Float(value) => float(*value),
        Number::Bool(value) => value.to_string(),
        Number::Series(series) => {
            let texts = series.iter().map(literal).collect::<Vec<_>>();
            format!("&[{}]", texts.join(", "))
        }
        Number::Any => "0".to_owned(),
    }
}

/// Returns the type of an argument of `new`.
pub(super) fn number_type(number: &Number) -> String {
    match number {
        Number::Int(_) | Number::Any => "i64".to_owned(),
        Number::Float(_) => "f64".to_owned(),
        Number::Bool(_) => "bool".to_owned(),
        Number::Series(series) => {
            let known = series.iter().find(|number| !matches!(number, Number::Any));
            format!("&[{}]", known.map_or("i64".to_owned(), number_type))
        }
    }
}
