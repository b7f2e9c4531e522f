//! The names of classes in Rust.

use std::collections::HashMap;

use super::class::{Class, Field};
use super::identifier::type_name;
use super::tree::{Body, Tree};

/// Returns the name of a class in Python, and of an `nn.Sequential` that of its field.
pub(super) fn base_name(tree: &Tree, body: usize) -> String {
    let last = |body: &Body| body.class.rsplit('.').next().unwrap_or(&body.class).to_owned();
    let body = &tree.bodies[body];
    let class = last(body);
    let field = body.module.rsplit('.').find(|part| part.parse::<u32>().is_err());
    match (&*class, field) {
        ("Sequential" | "ModuleList" | "ModuleDict", Some(field)) if !field.is_empty() => {
            let base = type_name(field);
            let is_class = tree.bodies.iter().any(|other| type_name(&last(other)) == base);
            if is_class { format!("{base}Sequential") } else { base }
        }
        ("Sequential", _) => "Net".to_owned(),
        _ => type_name(&class),
    }
}

/// Returns a name that no other class has. A second class of a name says which part it has and the first does not.
pub(super) fn unique_name(
    base: &str,
    classes: &[Class],
    fields: &[Field],
    names: &mut HashMap<String, usize>,
) -> String {
    let first = classes.iter().find(|class| class.name == base);
    if let Some(first) = first {
        let has = |fields: &[Field], path: &str| fields.iter().any(|field| field.path == path);
        let new = fields.iter().find(|field| !has(&first.fields, &field.path));
        let is_word =
            |field: &&Field| field.path.parse::<u32>().is_err() && !field.path.contains('.');
        if let Some(new) = new.filter(is_word) {
            let name = format!("{base}With{}", type_name(&new.path));
            if !names.contains_key(&name) {
                names.insert(name.clone(), 1);
                return name;
            }
        }
    }
    let count = names.entry(base.to_owned()).or_insert(0);
    *count += 1;
    if *count == 1 { base.to_owned() } else { format!("{base}{count}") }
}
