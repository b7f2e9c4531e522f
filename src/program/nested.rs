//! How arguments and outputs are nested, as PyTorch's pytree writes it, and the names that this gives to outputs.

use serde::Deserialize;
use serde_json::Value as Json;

/// How values are nested.
#[derive(Deserialize)]
pub(crate) struct Spec {
    /// The class that holds them; a value that is not nested has none.
    pub(crate) r#type: Option<String>,
    #[serde(default)]
    context: Json,
    #[serde(default)]
    pub(crate) children_spec: Vec<Spec>,
}

impl Spec {
    pub(crate) fn read(json: &str) -> Option<Spec> {
        serde_json::from_str::<(u32, Spec)>(json).ok().map(|(_, spec)| spec)
    }

    /// Returns the keys of a dict, or the names of a dataclass's fields.
    pub(crate) fn keys(&self) -> Vec<String> {
        let context = match &self.context {
            Json::String(context) => serde_json::from_str(context).unwrap_or_default(),
            // That of a defaultdict.
            other => other["dict_context"].clone(),
        };
        // A dataclass has two lists: its fields, and those that are None.
        let keys = context.get(0).filter(|first| first.is_array()).unwrap_or(&context);
        let key = |key: &Json| match key {
            Json::String(key) => key.clone(),
            other => other.to_string(),
        };
        let keys = keys.as_array().into_iter().flatten().map(key).collect::<Vec<_>>();
        if keys.len() == self.children_spec.len() { keys } else { Vec::new() }
    }

    /// Adds the name that a case has for each leaf, such as `output[results][0]`.
    fn name_leaves(&self, name: String, to: &mut Vec<String>) {
        if self.r#type.is_none() {
            return to.push(name);
        }
        let keys = self.keys();
        for (at, child) in self.children_spec.iter().enumerate() {
            let part = keys.get(at).map_or_else(|| at.to_string(), |key| escaped(key));
            child.name_leaves(format!("{name}[{part}]"), to);
        }
    }
}

/// Lists the names that a case has for what a model returns: `output`, or a name for each part, such as `output[0]` of a
/// tuple and `output[logits]` of a dict. `out_spec` says how they are nested, and `count` how many there are.
pub(super) fn output_names(out_spec: Option<&str>, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(spec) = out_spec.and_then(Spec::read) {
        spec.name_leaves("output".to_owned(), &mut names);
    }
    if names.len() == count {
        return names;
    }
    match count {
        1 => vec!["output".to_owned()],
        _ => (0..count).map(|at| format!("output[{at}]")).collect(),
    }
}

/// Returns a name in which the characters that mean something in the names of a case are percent-encoded.
pub(crate) fn escaped(name: &str) -> String {
    let escaped = |c: char| match c {
        '/' | '@' | '[' | ']' | '%' => format!("%{:02X}", u32::from(c)),
        other => other.into(),
    };
    name.chars().map(escaped).collect()
}
