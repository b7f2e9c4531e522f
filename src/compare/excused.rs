//! What a run says that it does not have, and the options of a run that never decide a verdict.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

use super::run::compare_run;
use crate::trace::{IMPLEMENTATIONS, Trace, split_call, split_step};

/// Removes the fields that never decide a verdict from two runs, and returns in words how the options differ.
pub(super) fn take_without_effect(actual: &mut Value, expected: &mut Value) -> Vec<String> {
    let [mut ours, mut theirs] = [actual, expected].map(|run| {
        let Some(run) = run.as_object_mut() else { return Options::new() };
        run.remove("not_recorded");
        run.remove("program");
        take_implementations(run)
    });
    let on = |options: &Options, path: &str| options.get(path) == Some(&Value::Bool(true));
    let paths = ours.keys().chain(theirs.keys()).cloned().collect::<Vec<_>>();
    for path in paths {
        // What is not said is not on.
        if on(&ours, &path) == on(&theirs, &path) {
            ours.remove(&path);
            theirs.remove(&path);
        }
    }
    let differ = compare_run("", &ours.into(), &theirs.into()).into_iter();
    differ
        .map(|field| format!("{field}: this chooses another implementation of the same step"))
        .collect()
}

/// Fields of a run by their paths, such as `optimizer.groups[1].fused`.
type Options = Map<String, Value>;

/// Removes the options that choose an implementation from every optimizer of a run.
fn take_implementations(run: &mut Options) -> Options {
    let mut taken = Options::new();
    if let Some(optimizer) = run.get_mut("optimizer") {
        take_from_optimizer("optimizer", optimizer, &mut taken);
    }
    let several = run.get_mut("optimizers").and_then(Value::as_object_mut);
    for (name, optimizer) in several.into_iter().flatten() {
        take_from_optimizer(&format!("optimizers.{name}"), optimizer, &mut taken);
    }
    taken
}

fn take_from_optimizer(path: &str, optimizer: &mut Value, taken: &mut Options) {
    let Some(optimizer) = optimizer.as_object_mut() else { return };
    let mut take = |path: &str, arguments: &mut Options| {
        for option in IMPLEMENTATIONS {
            if let Some(value) = arguments.remove(option) {
                taken.insert(format!("{path}.{option}"), value);
            }
        }
    };
    take(path, optimizer);
    for list in ["groups", "changes"] {
        let entries = optimizer.get_mut(list).and_then(Value::as_array_mut);
        for (at, entry) in entries.into_iter().flatten().enumerate() {
            if let Some(arguments) = entry.as_object_mut() {
                take(&format!("{path}.{list}[{at}]"), arguments);
            }
        }
    }
    // A change of nothing else is none.
    if let Some(changes) = optimizer.get_mut("changes").and_then(Value::as_array_mut) {
        let says_when = |key: &String| key == "step" || key == "group";
        changes
            .retain(|change| change.as_object().is_none_or(|fields| !fields.keys().all(says_when)));
        if changes.is_empty() {
            optimizer.remove("changes");
        }
    }
}

/// The reasons of a run for what it does not have.
///
/// The recorder writes them as `NAME: REASON` (`docs/format.md`). The name is that of a tensor without its step, or
/// that of a module, whose outputs and their gradients are left out then.
pub(super) struct Reasons<'a>(HashMap<&'a str, &'a str>);

impl<'a> Reasons<'a> {
    pub(super) fn of(run: Option<&'a Value>, trace: &Trace) -> Reasons<'a> {
        let lines = run.and_then(|run| run.get("not_recorded")?.as_array());
        let lines = lines.into_iter().flatten().filter_map(Value::as_str);
        let mut reasons = lines.filter_map(|line| line.split_once(": ")).collect::<HashMap<_, _>>();
        // A gradient that the run has of one step, it can lack of another for a fault.
        if reasons.keys().any(|name| name.starts_with("grad/")) {
            let names = trace.names().map(without_step).filter(|name| name.starts_with("grad/"));
            names.for_each(|name| _ = reasons.remove(&*name));
        }
        Reasons(reasons)
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
