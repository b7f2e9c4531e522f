//! Operators under the names of others that compute the same, and that tch binds or a person writes.

use super::flat::{Argument, Step};
use super::methods::Methods;

/// PyTorch's name for an operator that it has under a better known one.
const SAME: [(&str, &str); 4] = [
    ("__and__.Tensor", "bitwise_and.Tensor"),
    ("__or__.Tensor", "bitwise_or.Tensor"),
    ("__xor__.Tensor", "bitwise_xor.Tensor"),
    ("_unsafe_view", "reshape"),
];

/// Gives an operator another name where that says the same.
pub(super) fn simplify(step: &mut Step, methods: &Methods) {
    if let Some((_, same)) = SAME.iter().find(|(name, _)| *name == step.operator) {
        (*same).clone_into(&mut step.operator);
    }
    to_sizes(step, methods);
    simplified(step);
}

/// Takes the overload of an operator that has sizes alone where another one takes either these or factors: tch needs the
/// factors there.
fn to_sizes(step: &mut Step, methods: &Methods) {
    let given = |name: &str| {
        let of_name = step.arguments.iter().find(|(known, _)| known == name);
        of_name.map(|(_, argument)| argument)
    };
    let has_factors = !matches!(given("scale_factors"), None | Some(Argument::None));
    let has_sizes = matches!(given("output_size"), Some(Argument::Ints(_)));
    let base = step.operator.strip_suffix(".vec").filter(|base| methods.find(base).is_some());
    if let (Some(base), true, false) = (base.map(str::to_owned), has_sizes, has_factors) {
        step.operator = base;
        step.arguments.retain(|(name, _)| name != "scale_factors");
        for (name, _) in step.arguments.iter_mut().filter(|(name, _)| name == "input") {
            "self".clone_into(name);
        }
    }
}

/// Gives an operator the name of one that computes the same with fewer arguments.
fn simplified(step: &mut Step) {
    let given = |name: &str| {
        let of_name = step.arguments.iter().find(|(known, _)| known == name);
        of_name.map(|(_, argument)| argument).filter(|argument| **argument != Argument::None)
    };
    let (base, inplace) = match step.operator.strip_suffix('_') {
        Some(base) => (base, "_"),
        None => (&*step.operator, ""),
    };
    let simple = match base {
        "clamp" if given("max").is_none() => format!("clamp_min{inplace}"),
        "clamp" if given("min").is_none() => format!("clamp_max{inplace}"),
        "var.correction" | "std.correction" if given("correction").is_none() => {
            if given("dim").is_none() && given("keepdim").is_none() {
                let base = base.trim_end_matches(".correction").to_owned();
                step.arguments.retain(|(name, _)| name == "self");
                step.arguments.push(("unbiased".to_owned(), Argument::Bool(true)));
                step.operator = base;
            } else {
                step.arguments.retain(|(name, _)| name != "correction");
                step.arguments.push(("correction".to_owned(), Argument::Int(1)));
            }
            return;
        }
        _ => return,
    };
    step.operator = simple;
    step.arguments.retain(|(_, argument)| *argument != Argument::None);
}
