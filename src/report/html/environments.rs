//! Where the two runs were made, side by side.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::shown;
use crate::report::Report;
use crate::trace::Environment;

/// Returns the fields of both environments, with those that differ marked.
pub(super) fn table(report: &Report) -> String {
    let [actual, expected] = report.environments.each_ref().map(fields);
    if actual.is_empty() && expected.is_empty() {
        return String::new();
    }
    let mut text = "<details open><summary>Environments</summary><div class=\"wide\"><table class=\"environments\">\
                    <tr><th></th><th>actual</th><th>expected</th></tr>"
        .to_owned();
    let names = expected.keys().chain(actual.keys().filter(|name| !expected.contains_key(*name)));
    for name in names {
        let [ours, theirs] = [actual.get(name), expected.get(name)];
        let class = if ours == theirs { "" } else { " class=\"differs\"" };
        let [ours, theirs] = [ours, theirs].map(|value| value.map_or(String::new(), cell));
        let name = shown(name);
        let _ = write!(text, "<tr{class}><th>{name}</th><td>{ours}</td><td>{theirs}</td></tr>");
    }
    text + "</table></div></details>"
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Null => String::new(),
        other => shown(&other.to_string()),
    }
}

/// Lists the fields of an environment in their order, those of the CUDA device among them.
fn fields(environment: &Option<Environment>) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(environment) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    if let Some(Value::Object(cuda)) = fields.remove("cuda") {
        fields.extend(cuda);
    }
    fields
}
