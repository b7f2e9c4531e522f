//! The fields of a struct: which parts of a PyTorch module are one, and what they are called.

use std::collections::HashSet;

use super::class::{Class, Classes, Field, FieldOf};
use super::identifier::{snake, unique};

/// A field in Rust: one part of a module, or the modules `h.0`, `h.1` and so on as a `Vec`.
pub(super) struct RustField {
    pub(super) name: String,
    pub(super) parts: Vec<Field>,
    pub(super) is_list: bool,
}

/// Works out the fields of a class, in PyTorch's order.
pub(super) fn find(class: &Class, classes: &Classes) -> Vec<RustField> {
    let mut fields = Vec::<RustField>::new();
    let mut names = class.arguments.iter().map(|hole| hole.hint.clone()).collect::<HashSet<_>>();
    let mut seen = HashSet::new();
    for field in &class.fields {
        if seen.contains(&field.path) || is_function(field, classes) {
            continue;
        }
        let list = list_of(field, class, classes);
        let parts = list.clone().unwrap_or_else(|| vec![field.clone()]);
        seen.extend(parts.iter().map(|part| part.path.clone()));
        let path = if list.is_some() { without_index(&field.path) } else { &field.path };
        let base = match (path.parse::<u32>(), field.what.clone()) {
            // The modules of an `nn.Sequential` have no other names than numbers.
            (Ok(_), FieldOf::Module(body)) => {
                let class = &classes.classes[classes.of_body[body]];
                let kind = match &class.layer {
                    Some(layer) => snake(layer.type_name().trim_start_matches("nn::")),
                    None => snake(&class.base),
                };
                format!("{kind}_{path}")
            }
            _ => snake(path),
        };
        let name = unique(&base, |name| names.contains(name));
        names.insert(name.clone());
        fields.push(RustField { name, parts, is_list: list.is_some() });
    }
    fields
}

/// Returns whether a part is a module without anything of its own, which is a function in Rust.
fn is_function(field: &Field, classes: &Classes) -> bool {
    match field.what {
        FieldOf::Module(body) => classes.classes[classes.of_body[body]].is_function(),
        FieldOf::Variable(_) => false,
    }
}

/// Returns the modules that a `Vec` holds with this one: `h.0`, `h.1` and so on of one class.
fn list_of(field: &Field, class: &Class, classes: &Classes) -> Option<Vec<Field>> {
    let (base, index) = field.path.rsplit_once('.')?;
    index.parse::<u32>().ok()?;
    let FieldOf::Module(first) = field.what else { return None };
    let mut parts = Vec::new();
    for at in 0.. {
        let path = format!("{base}.{at}");
        let Some(part) = class.fields.iter().find(|field| field.path == path) else { break };
        let FieldOf::Module(body) = part.what else { return None };
        if classes.of_body[body] != classes.of_body[first] {
            return None;
        }
        parts.push(part.clone());
    }
    let of_base = class.fields.iter().filter(|field| without_index(&field.path) == base);
    (!parts.is_empty() && of_base.count() == parts.len()).then_some(parts)
}

/// Returns `h` for `h.0`.
fn without_index(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((base, index)) if index.parse::<u32>().is_ok() => base,
        _ => path,
    }
}

/// Returns where a part of a module is in Rust, such as `self.h[0]`.
pub(super) fn place(class: &Class, path: &str) -> Option<String> {
    let field =
        class.rust_fields.iter().find(|field| field.parts.iter().any(|part| part.path == path))?;
    let at = field.parts.iter().position(|part| part.path == path)?;
    Some(if field.is_list { format!("{}[{at}]", field.name) } else { field.name.clone() })
}

/// Returns where a parameter or a buffer is in Rust, such as `h[0].ln_1.ws`, by its name from the class's module on.
pub(super) fn variable(class: &Class, classes: &Classes, name: &str) -> Option<String> {
    if let Some(layer) = &class.layer {
        return Some(layer.field(name).to_owned());
    }
    if let Some(own) = place(class, name) {
        return Some(own);
    }
    class.fields.iter().find_map(|field| {
        let FieldOf::Module(body) = field.what else { return None };
        let rest = name.strip_prefix(&field.path)?.strip_prefix('.')?;
        let inner = variable(&classes.classes[classes.of_body[body]], classes, rest)?;
        Some(format!("{}.{inner}", place(class, &field.path)?))
    })
}
