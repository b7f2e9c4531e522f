//! The source of each class: a struct with `new` and `forward`, or a function.

use anyhow::Result;

use super::class::{Class, FieldOf};
use super::constructor::number_type;
use super::fields::RustField;
use super::flat;
use super::forward::{Forward, forward};
use super::identifier::{file_name, snake};
use super::number::Hole;
use super::rust::has_near_constant;
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
    /// The name of the struct of its numbers.
    pub(super) config: Option<String>,
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
            let (config, needs_call) = (class.config.clone(), forward.needs_call);
            Ok(Source { name, config, file, text: text?, needs_call })
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
        let mut text = config(class);
        text += &self.about(class);
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
            text += &format!("pub {},\n", declared(hole));
        }
        text += &format!("}}\n\nimpl {name} {{\n");
        let path = match (fields.is_empty(), is_root) {
            (false, _) => Some("p: nn::Path".to_owned()),
            // A model is made of a path, whatever it has.
            (true, true) => Some("_p: nn::Path".to_owned()),
            (true, false) => None,
        };
        let mut arguments = path.into_iter().collect::<Vec<_>>();
        arguments.extend(class.config.iter().map(|config| format!("config: {config}")));
        arguments.extend(class.numbers(false).map(declared));
        if arguments.len() > MAX_ARGUMENTS {
            text += "#[allow(clippy::too_many_arguments)]\n";
        }
        let before_new = text.len();
        text += &format!("pub fn new({}) -> {name} {{\n", arguments.join(", "));
        if let Some(config) = &class.config {
            let names = class.numbers(true).map(|hole| hole.hint.clone()).collect::<Vec<_>>();
            text += &format!("let {config} {{ {} }} = config;\n", names.join(", "));
        }
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
        let depends_on_mode = self.tree.bodies[self.tree.root].depends_on_mode;
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
        let first = &field.parts[0];
        let of_one = match first.body() {
            None => "Tensor".to_owned(),
            Some(body) => {
                let class = &self.classes.classes[self.classes.of_body[body]];
                class.layer.as_ref().map_or_else(|| class.name.clone(), |layer| layer.type_name())
            }
        };
        let of_one = match first.what {
            FieldOf::List { .. } => format!("Vec<{of_one}>"),
            _ => of_one,
        };
        match field.is_list {
            true => format!("Vec<{of_one}>"),
            false if class.has(&field.parts[0].path).is_some() => format!("Option<{of_one}>"),
            false => of_one,
        }
    }
}

/// Writes the struct of the numbers of a class that has too many for arguments.
fn config(class: &Class) -> String {
    let Some(config) = &class.config else { return String::new() };
    let fields = class.numbers(true).map(|hole| format!("pub {},\n", declared(hole)));
    let fields = fields.collect::<String>();
    let about =
        format!("/// The numbers of a [`{}`].\n#[derive(Clone, Copy, Debug)]\n", class.name);
    format!("{about}pub struct {config} {{\n{fields}}}\n\n")
}

fn declared(hole: &Hole) -> String {
    format!("{}: {}", hole.hint, number_type(&hole.number))
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
