//! What a run says that it does not have, and the options of a run that never decide a verdict.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use crate::trace::{IMPLEMENTATIONS, split_call, split_step};

/// Removes the fields that never decide a verdict from two runs, and returns in words how the options differ.
pub(super) fn take_without_effect(actual: &mut Value, expected: &mut Value) -> Vec<String> {
    for run in [&mut *actual, &mut *expected] {
        take(run, "not_recorded");
    }
    let differing = IMPLEMENTATIONS.iter().filter_map(|option| {
        let [ours, theirs] = [&mut *actual, &mut *expected].map(|run| {
            let value = run.get_mut("optimizer").and_then(|optimizer| take(optimizer, option));
            value.unwrap_or_default()
        });
        let on = |value: &Value| *value == Value::Bool(true);
        (on(&ours) != on(&theirs)).then(|| {
            format!(
                "optimizer.{option} is {ours}, not {theirs}: this chooses another implementation of the same step"
            )
        })
    });
    differing.collect()
}

fn take(section: &mut Value, field: &str) -> Option<Value> {
    section.as_object_mut()?.remove(field)
}

/// The reasons of a run for what it does not have.
///
/// The recorder writes them as `NAME: REASON` (`docs/format.md`). The name is that of a tensor without its step, or
/// that of a module, whose outputs and their gradients are left out then.
pub(super) struct Reasons<'a>(HashMap<&'a str, &'a str>);

impl<'a> Reasons<'a> {
    pub(super) fn of(run: Option<&'a Value>) -> Reasons<'a> {
        let lines = run.and_then(|run| run.get("not_recorded")?.as_array());
        let lines = lines.into_iter().flatten().filter_map(Value::as_str);
        Reasons(lines.filter_map(|line| line.split_once(": ")).collect())
    }

    pub(super) fn of_tensor(&self, name: &str) -> Option<&'a str> {
        let name = without_step(name);
        let of_module = || {
            let output = name.strip_prefix("forward/").or_else(|| name.strip_prefix("grad/"))?;
            self.0.get(split_call(output).0)
        };
        // A name without a section is a module's, and stands for no tensor of that name.
        let of_itself = self.0.get(&*name).filter(|_| name.contains('/'));
        of_itself.or_else(of_module).copied()
    }
}

/// Returns whether a run says nothing but what it does not have, as that of a port's recorder does.
pub(super) fn only_lacks(run: &Value) -> bool {
    run.as_object().is_some_and(|run| run.keys().eq(["not_recorded"]))
}

/// Returns the name of a tensor without the number of its step: what is there after a step begins with `step/` then.
fn without_step(name: &str) -> Cow<'_, str> {
    match split_step(name) {
        Some((_, name)) if name.contains('/') && !name.starts_with("state/") => name.into(),
        Some((_, name)) => format!("step/{name}").into(),
        None => name.into(),
    }
}
