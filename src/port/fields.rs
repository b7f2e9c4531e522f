//! The fields of a struct: which parts of a PyTorch module are one, and what they are called.

use std::collections::HashSet;

use super::class::{Class, Classes, Field, FieldOf};
use super::identifier::{snake, unique};
use super::series::plural;

/// A field in Rust: one part of a module, or the parts `h.0`, `h.1` and so on as a `Vec`.
pub(super) struct RustField {
    pub(super) name: String,
    pub(super) parts: Vec<Field>,
    pub(super) is_list: bool,
}

impl Field {
    /// Returns its path, which for a list is what its modules have in common, such as `layers` for `layers.0`.
    fn own_path(&self) -> &str {
        match &self.what {
            FieldOf::List { modules, .. } => modules.stem.trim_end_matches(['.', '_']),
            _ => &self.path,
        }
    }

    /// Returns the body of its module, or of its first one.
    pub(super) fn body(&self) -> Option<usize> {
        match &self.what {
            FieldOf::Module(body) => Some(*body),
            FieldOf::List { bodies, .. } => bodies.first().copied(),
            FieldOf::Variable(_) => None,
        }
    }

    /// Returns where in the field the module of a path is, such as `[2]`.
    fn position(&self, path: &str) -> Option<String> {
        match &self.what {
            FieldOf::List { modules, bodies } => {
                let at = (0..bodies.len()).find(|at| modules.path(*at) == path)?;
                Some(format!("[{at}]"))
            }
            _ => (self.path == path).then(String::new),
        }
    }
}

/// Works out the fields of a class, in PyTorch's order.
pub(super) fn find(class: &Class, classes: &Classes) -> Vec<RustField> {
    let mut fields = Vec::<RustField>::new();
    let mut names = class.arguments.iter().map(|hole| hole.hint.clone()).collect::<HashSet<_>>();
    let mut seen = HashSet::new();
    for field in &class.fields {
        if seen.contains(&field.path) {
            continue;
        }
        let list = list_of(field, class, classes);
        let parts = list.clone().unwrap_or_else(|| vec![field.clone()]);
        seen.extend(parts.iter().map(|part| part.path.clone()));
        let path = field.own_path();
        let path = if list.is_some() { without_index(path) } else { path };
        let base = base_of(field, path, classes);
        let name = unique(&base, |name| names.contains(name));
        names.insert(name.clone());
        fields.push(RustField { name, parts, is_list: list.is_some() });
    }
    fields
}

/// Returns what a field could be called.
fn base_of(field: &Field, path: &str, classes: &Classes) -> String {
    let is_number = path.is_empty() || path.parse::<u32>().is_ok();
    match (&field.what, field.body()) {
        // The modules of an `nn.Sequential` have no other names than numbers.
        (what, Some(body)) if is_number => {
            let class = &classes.classes[classes.of_body[body]];
            let kind = match &class.layer {
                Some(layer) => snake(layer.type_name().trim_start_matches("nn::")),
                None => snake(&class.base),
            };
            match what {
                FieldOf::List { .. } => snake(&format!("{} {path}", plural(&kind))),
                _ => format!("{kind}_{path}"),
            }
        }
        (FieldOf::List { modules, .. }, _) if !modules.stem.ends_with('.') => {
            snake(&plural(path.rsplit('.').next().unwrap_or(path)))
        }
        _ => snake(path),
    }
}

/// Returns the parts that a `Vec` holds with this one: `h.0`, `h.1` and so on of one class.
fn list_of(field: &Field, class: &Class, classes: &Classes) -> Option<Vec<Field>> {
    let (base, index) = field.own_path().rsplit_once('.')?;
    index.parse::<u32>().ok()?;
    let first = field.body()?;
    let mut parts = Vec::new();
    for at in 0.. {
        let path = format!("{base}.{at}");
        let Some(part) = class.fields.iter().find(|field| field.own_path() == path) else { break };
        let is_same = classes.of_body[part.body()?] == classes.of_body[first]
            && std::mem::discriminant(&part.what) == std::mem::discriminant(&field.what)
            && class.has(&part.path).is_none();
        if !is_same {
            return None;
        }
        parts.push(part.clone());
    }
    let of_base = class.fields.iter().filter(|field| without_index(field.own_path()) == base);
    (!parts.is_empty() && of_base.count() == parts.len()).then_some(parts)
}

/// Returns `h` for `h.0`.
fn without_index(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((base, index)) if index.parse::<u32>().is_ok() => base,
        _ => path,
    }
}

/// Returns where a part of a module is in Rust, such as `h[0]`.
pub(super) fn place(class: &Class, path: &str) -> Option<String> {
    class.rust_fields.iter().find_map(|field| {
        let of_part = |(at, part): (usize, &Field)| {
            let position = part.position(path)?;
            let index = if field.is_list { format!("[{at}]") } else { String::new() };
            Some(format!("{}{index}{position}", field.name))
        };
        field.parts.iter().enumerate().find_map(of_part)
    })
}

/// Returns where a parameter or a buffer is in Rust, such as `h[0].ln_1.ws`, by its name from the class's module on.
pub(super) fn variable(class: &Class, classes: &Classes, name: &str) -> Option<String> {
    if let Some(layer) = &class.layer {
        return Some(layer.field(name).to_owned());
    }
    if let Some(own) = place(class, name) {
        return Some(own);
    }
    let modules = class.fields.iter().flat_map(|field| match &field.what {
        FieldOf::Module(body) => vec![(field.path.clone(), *body)],
        FieldOf::List { modules, bodies } => {
            bodies.iter().enumerate().map(|(at, body)| (modules.path(at), *body)).collect()
        }
        FieldOf::Variable(_) => Vec::new(),
    });
    modules.into_iter().find_map(|(path, body)| {
        let rest = name.strip_prefix(&path)?.strip_prefix('.')?;
        let inner = variable(&classes.classes[classes.of_body[body]], classes, rest)?;
        Some(format!("{}.{inner}", place(class, &path)?))
    })
}
