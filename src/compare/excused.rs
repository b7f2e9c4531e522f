//! What a run says that it does not have, and the options of a run that cannot change a bit.

use std::collections::HashMap;

use serde_json::Value;

/// The fields of a run that never decide a verdict, each a path.
///
/// `foreach` chooses between one loop over the parameters and another
/// ([Adam's](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adam.py#L349)), with the same operations.
const WITHOUT_EFFECT: [&[&str]; 2] = [&["not_recorded"], &["optimizer", "foreach"]];

/// Removes the fields that never decide a verdict from two runs, and returns those that differ, in words.
pub(super) fn take_without_effect(actual: &mut Value, expected: &mut Value) -> Vec<String> {
    let differing = WITHOUT_EFFECT.iter().filter_map(|path| {
        let [ours, theirs] = [&mut *actual, &mut *expected].map(|run| take(run, path));
        let shown = |value: Option<Value>| value.map_or("not said".to_owned(), |v| v.to_string());
        let is_list = path.last() == Some(&"not_recorded");
        (ours != theirs && !is_list).then(|| {
            format!(
                "{} is {}, not {}: this cannot change a bit",
                path.join("."),
                shown(ours),
                shown(theirs)
            )
        })
    });
    differing.collect()
}

fn take(run: &mut Value, path: &[&str]) -> Option<Value> {
    let (field, sections) = path.split_last()?;
    let section = sections.iter().try_fold(run, |run, key| run.get_mut(*key))?;
    section.as_object_mut()?.remove(*field)
}

/// Returns the reasons of a run for what it does not have, by the tensor's name without its step.
///
/// The recorder writes them as `NAME: REASON` (`docs/format.md`).
pub(super) fn reasons(run: Option<&Value>) -> HashMap<&str, &str> {
    let lines = run.and_then(|run| run.get("not_recorded")?.as_array());
    let lines = lines.into_iter().flatten().filter_map(Value::as_str);
    lines.filter_map(|line| line.split_once(": ")).collect()
}

/// Returns whether a run says nothing but what it does not have, as that of a port's recorder does.
pub(super) fn only_lacks(run: &Value) -> bool {
    run.as_object().is_some_and(|run| run.keys().eq(["not_recorded"]))
}

/// Returns the name of a tensor without its step.
pub(super) fn without_step(name: &str) -> &str {
    name.strip_prefix("step/").and_then(|rest| rest.split_once('/')).map_or(name, |(_, name)| name)
}
