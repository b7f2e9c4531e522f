//! The comparison of what was run, field by field.

use serde_json::Value;

/// Returns the fields that differ, each with its path, which begins with `at`.
///
/// There are at most [`MAX_FIELDS`], and a last one that says how many more there are.
pub(crate) fn compare_run(at: &str, actual: &Value, expected: &Value) -> Vec<String> {
    let mut differ = Vec::new();
    compare_json(at, actual, expected, &mut differ);
    let more = differ.len().saturating_sub(MAX_FIELDS);
    if more > 0 {
        differ.truncate(MAX_FIELDS);
        differ.push(format!("… and {more} more fields"));
    }
    differ
}

fn compare_json(at: &str, actual: &Value, expected: &Value, differ: &mut Vec<String>) {
    let path = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            for (key, expected) in expected {
                compare_json(&path(key), actual.get(key).unwrap_or(&Value::Null), expected, differ);
            }
            for (key, actual) in actual.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                compare_json(&path(key), actual, &Value::Null, differ);
            }
        }
        // 0 equals 0.0, since the type of a number only depends on who wrote it. Two integers, however, have to
        // agree in every digit.
        (Value::Number(a), Value::Number(e))
            if (a.is_f64() || e.is_f64()) && a.as_f64() == e.as_f64() => {}
        _ if actual == expected => {}
        _ => differ.push(shortened(&format!("{at} is {actual}, not {expected}"), MAX_LENGTH)),
    }
}

/// The most fields that are named: a run of a million steps can have as many.
const MAX_FIELDS: usize = 100;

/// The most characters of a difference: names and values are of any length, and a name is in many of them.
const MAX_LENGTH: usize = 300;

/// Replaces the middle of a text that has more characters than `most` by an ellipsis.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let half = most / 2;
    text.chars().take(half).chain(['…']).chain(text.chars().skip(count - half)).collect()
}
