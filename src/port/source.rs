//! The source of each class: a struct with `new` and `forward`, or a function.

use anyhow::Result;

use super::class::{Class, FieldOf, Hole, Number, Place};
use super::fields::RustField;
use super::flat;
use super::forward::{Forward, forward};
use super::identifier::{file_name, snake};
use super::rust::{float, has_near_constant};
use super::variables::zeros;
use super::{Mode, Port};

/// The most arguments that clippy takes without a word.
const MAX_ARGUMENTS: usize = 7;
/// What lets clippy accept a number that is nearly a known one.
const NEAR_CONSTANT: &str = "#[allow(clippy::approx_constant)]\n";
/// The longest tuple that clippy takes without a word.
const MAX_RESULTS: usize = 4;

/// The files that have a meaning to cargo, or are of the port itself.
const FILES: [&str; 4] = ["lib", "main", "mod", "operator"];

/// The source of one class.
pub(super) struct Source {
    /// The name of the struct, or of the function.
    pub(super) name: String,
    /// The name of its file, without `.rs`.
    pub(super) file: String,
    pub(super) text: String,
    pub(super) needs_call: bool,
}

impl Port {
    /// Writes every class, those that others use first.
    pub(super) fn sources(&self) -> Result<Vec<Source>> {
        let classes = self.classes.classes.iter().filter(|class| class.layer.is_none());
        let written = classes.map(|class| {
            let forward = forward(self, class)?;
            Ok((class, forward))
        });
        let written = written.collect::<Result<Vec<_>>>()?;
        let mut files = FILES.map(str::to_owned).to_vec();
        let sources = written.iter().map(|(class, forward)| {
            let is_function = self.is_function(class);
            let text = if is_function {
                self.function(class, forward)
            } else {
                self.structure(class, forward)
            };
            let name = if is_function { snake(&class.name) } else { class.name.clone() };
            let mut file = file_name(&class.name);
            while files.contains(&file) {
                file += "_module";
            }
            files.push(file.clone());
            Ok(Source { name, file, text: text?, needs_call: forward.needs_call })
        });
        sources.collect()
    }

    /// Returns whether a class is written as a function; the model itself is always a struct.
    fn is_function(&self, class: &Class) -> bool {
        class.is_function() && !std::ptr::eq(class, self.root())
    }

    fn function(&self, class: &Class, forward: &Forward) -> Result<String> {
        let name = snake(&class.name);
        let returns = self.returns(class);
        let arguments = forward.arguments.join(", ");
        let about = self.about(class);
        let allows = allows(forward);
        Ok(format!(
            "{about}{allows}pub fn {name}({arguments}) -> {returns} {{\n{}\n}}\n",
            forward.body
        ))
    }

    /// Returns the lines of documentation, and what clippy has to accept.
    fn about(&self, class: &Class) -> String {
        format!("/// `{}`.\n", self.tree.bodies[class.body].class)
    }

    fn returns(&self, class: &Class) -> String {
        let outputs = self.tree.bodies[class.body].outputs.iter();
        let kinds = outputs.map(|id| match self.flat.values[*id].kind {
            flat::Kind::Tensor => "Tensor",
            flat::Kind::Int => "i64",
            flat::Kind::Float => "f64",
        });
        let kinds = kinds.collect::<Vec<_>>();
        let of = match kinds[..] {
            [one] => one.to_owned(),
            _ => format!("({})", kinds.join(", ")),
        };
        format!("Result<{of}, TchError>")
    }

    fn structure(&self, class: &Class, forward: &Forward) -> Result<String> {
        let is_root = std::ptr::eq(class, self.root());
        let name = &class.name;
        let fields = &class.rust_fields;
        let mut numbers = forward.numbers.iter().copied().collect::<Vec<_>>();
        numbers.sort_unstable();
        let mut text = self.about(class);
        if is_root {
            text += &self.about_root();
        }
        text += "#[derive(Debug)]\n";
        text += &format!("pub struct {name} {{\n");
        for field in fields {
            text += &format!("pub {}: {},\n", field.name, self.type_of(class, field));
        }
        for number in &numbers {
            let hole = &class.arguments[*number];
            text += &format!("pub {}: {},\n", hole.hint, number_type(hole));
        }
        text += &format!("}}\n\nimpl {name} {{\n");
        let path = match (fields.is_empty(), is_root) {
            (false, _) => Some("p: nn::Path".to_owned()),
            // A model is made of a path, whatever it has.
            (true, true) => Some("_p: nn::Path".to_owned()),
            (true, false) => None,
        };
        let mut arguments = path.into_iter().collect::<Vec<_>>();
        arguments.extend(
            class.arguments.iter().map(|hole| format!("{}: {}", hole.hint, number_type(hole))),
        );
        if arguments.len() > MAX_ARGUMENTS {
            text += "#[allow(clippy::too_many_arguments)]\n";
        }
        let before_new = text.len();
        text += &format!("pub fn new({}) -> {name} {{\n", arguments.join(", "));
        let values = fields.iter().map(|field| self.constructor(class, field));
        let mut values = values.collect::<Result<Vec<_>>>()?;
        text += &shared_configs(&mut values);
        text += &format!("{name} {{\n");
        for (field, value) in fields.iter().zip(values) {
            text += &format!("{}: {value},\n", field.name);
        }
        for number in &numbers {
            text += &format!("{},\n", class.arguments[*number].hint);
        }
        text += "}\n}\n\n";
        if has_near_constant(&text[before_new..]) {
            text.insert_str(before_new, NEAR_CONSTANT);
        }
        if is_root {
            text += &self.about_outputs();
        }
        if self.tree.bodies[class.body].outputs.len() > MAX_RESULTS {
            text += "#[allow(clippy::type_complexity)]\n";
        }
        if forward.arguments.len() >= MAX_ARGUMENTS {
            text += "#[allow(clippy::too_many_arguments)]\n";
        }
        text += allows(forward);
        let mut arguments = vec!["&self".to_owned()];
        arguments.extend(forward.arguments.iter().cloned());
        let returns = self.returns(class);
        let forward_name = class.forward(self);
        text += &format!("pub fn {forward_name}({}) -> {returns} {{\n", arguments.join(", "));
        text += &forward.body;
        text += "\n}\n}\n";
        Ok(text)
    }

    /// Says of the model what it was exported for.
    pub(super) fn about_root(&self) -> String {
        let fixed = self.flat.inputs.iter().filter_map(|id| {
            let value = &self.flat.values[*id];
            let sizes = &value.meta.as_ref()?.sizes;
            sizes.iter().any(Option::is_some).then_some(())?;
            let sizes =
                sizes.iter().map(|size| size.map_or("any".to_owned(), |size| size.to_string()));
            let name = self.flat.input_name(*id);
            Some(format!("`{name}` is [{}]", sizes.collect::<Vec<_>>().join(", ")))
        });
        let fixed = fixed.collect::<Vec<_>>().join(", ");
        let fixed = match &*fixed {
            "" => String::new(),
            fixed => format!(
                "///\n/// It was exported for these sizes, and numbers in its code can follow from them: {fixed}.\n"
            ),
        };
        let depends_on_mode = self.tree.bodies[self.tree.bodies.len() - 1].depends_on_mode;
        let mode = match self.mode {
            Mode::Both if depends_on_mode => {
                "///\n/// It was exported in `train()` and in `eval()`, and `forward_t` is told which of them.\n"
            }
            Mode::Both => "///\n/// It computes the same in `train()` and in `eval()`.\n",
            Mode::Train => "///\n/// It was exported in `train()`.\n",
            Mode::Eval => "///\n/// It was exported in `eval()`.\n",
            Mode::Unknown => "",
        };
        fixed + mode
    }

    fn about_outputs(&self) -> String {
        let names = &self.flat.output_names;
        if names.is_empty() {
            return String::new();
        }
        let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        format!("/// Returns {}.\n", names.join(", "))
    }

    fn type_of(&self, class: &Class, field: &RustField) -> String {
        let of_one = match field.parts[0].what {
            FieldOf::Variable(_) => "Tensor".to_owned(),
            FieldOf::Module(body) => {
                let class = &self.classes.classes[self.classes.of_body[body]];
                class.layer.as_ref().map_or_else(|| class.name.clone(), |layer| layer.type_name())
            }
        };
        match field.is_list {
            true => format!("Vec<{of_one}>"),
            false if class.has(&field.parts[0].path).is_some() => format!("Option<{of_one}>"),
            false => of_one,
        }
    }

    fn constructor(&self, class: &Class, field: &RustField) -> Result<String> {
        if let ([one], false) = (&field.parts[..], field.is_list) {
            let made = self.part(class, &one.path, &one.what, None)?;
            return Ok(match class.has(&one.path) {
                Some(has) => format!("{}.then(|| {made})", class.arguments[has].hint),
                None => made,
            });
        }
        let of = |index: Option<&str>, part: usize| {
            let part = &field.parts[part];
            self.part(class, &part.path, &part.what, index)
        };
        let first = of(Some("i"), 0)?;
        let count = field.parts.len();
        let all_same = (1..count).map(|part| of(Some("i"), part));
        if all_same.collect::<Result<Vec<_>>>()?.iter().all(|text| *text == first) {
            return Ok(format!("(0..{count}).map(|i| {first}).collect()"));
        }
        let parts = (0..count).map(|part| of(None, part)).collect::<Result<Vec<_>>>()?;
        Ok(format!("vec![{}]", parts.join(", ")))
    }

    /// Writes what makes a part of a module. `index` stands for the number at the end of its path.
    fn part(
        &self,
        class: &Class,
        path: &str,
        what: &FieldOf,
        index: Option<&str>,
    ) -> Result<String> {
        let number = |at: usize, number: Number| {
            let place = Place::New { field: path.to_owned(), at };
            match class.argument_at.get(&place) {
                Some(argument) => class.arguments[*argument].hint.clone(),
                None => literal(number),
            }
        };
        let place = |path: &str| {
            let (path, last) = match index {
                Some(index) => (path.rsplit_once('.').map_or("", |(base, _)| base), Some(index)),
                None => (path, None),
            };
            let parts = path.split('.').map(|part| match part.parse::<u32>() {
                Ok(number) => format!(" / {number}"),
                Err(_) => format!(" / {part:?}"),
            });
            let last = last.map(|index| format!(" / {index}"));
            format!("&p{}{}", parts.collect::<String>(), last.unwrap_or_default())
        };
        match what {
            FieldOf::Module(body) => {
                let of = &self.classes.classes[self.classes.of_body[*body]];
                let numbers = self.classes.numbers[*body].iter().enumerate();
                let numbers = numbers.map(|(at, of)| number(at, *of)).collect::<Vec<_>>();
                let path = place(path);
                if let Some(layer) = &of.layer {
                    return Ok(layer.constructor(&path, &numbers));
                }
                let has_path = !of.rust_fields.is_empty();
                let path = has_path.then_some(path);
                let given = path.into_iter().chain(numbers).collect::<Vec<_>>().join(", ");
                Ok(format!("{}::new({given})", of.name))
            }
            FieldOf::Variable(at) => {
                let variable = &self.flat.variables[*at];
                let sizes = variable.meta.sizes.iter().enumerate();
                let sizes = sizes.map(|(at, size)| number(at, Number::Int(size.unwrap_or(0))));
                let full = path;
                let (path, name) = match path.rsplit_once('.') {
                    Some((path, name)) => (format!("({})", place(path)), name),
                    None => ("p".to_owned(), path),
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
        }
    }
}

/// Gives names to the configurations that several layers have, and returns the lines that make them.
fn shared_configs(values: &mut [String]) -> String {
    let mut lines = String::new();
    let config = |value: &String| {
        let start = value.find("nn::").filter(|_| value.contains("Config {"))?;
        let start = start + value[start..].find(", nn::")? + 2;
        let end = start + value[start..].find('}')? + 1;
        Some(value[start..end].to_owned())
    };
    let found = values.iter().filter_map(config).collect::<Vec<_>>();
    let mut named = Vec::<String>::new();
    for text in &found {
        let count = found.iter().filter(|other| *other == text).count();
        if count < 2 || named.contains(text) {
            continue;
        }
        let base = if text.contains("{ bias: false, ..") { "no_bias" } else { "config" };
        let taken = lines.matches(&format!("let {base}")).count();
        let name = if taken == 0 { base.to_owned() } else { format!("{base}_{}", taken + 1) };
        lines += &format!("let {name} = {text};\n");
        for value in values.iter_mut() {
            *value = value.replace(text, &name);
        }
        named.push(text.clone());
    }
    lines
}

/// Returns what clippy has to accept of a `forward`.
fn allows(forward: &Forward) -> &'static str {
    if has_near_constant(&forward.body) { NEAR_CONSTANT } else { "" }
}

fn literal(number: Number) -> String {
    match number {
        Number::Int(int) => int.to_string(),
        Number::Float(value) => float(value),
        Number::Bool(value) => value.to_string(),
        Number::Any => String::new(),
    }
}

fn number_type(hole: &Hole) -> &'static str {
    match hole.number {
        Number::Int(_) => "i64",
        Number::Float(_) => "f64",
        Number::Bool(_) => "bool",
        Number::Any => "",
    }
}
