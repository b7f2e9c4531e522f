//! The dataflow of a run: which tensor is computed from which other one.

use super::layout::PARAMETERS;
use crate::compare::Edge;

/// The forward pass: what each operation reads, what it computes, and its name.
const FORWARD: [(&str, &str, &str); 7] = [
    ("x", "z2", "fc1"),
    ("z2", "h2", "the relu after fc1"),
    ("h2", "z3", "fc2"),
    ("z3", "h3", "the relu after fc2"),
    ("h3", "z", "fc3"),
    ("z", "h", "the sigmoid"),
    ("h", "L", "BCELoss"),
];

/// Lists the operations of a run of `steps` steps, each with a tensor that it reads and the one that it computes.
///
/// They are in the order of execution: forward, then backward, then the steps.
pub fn dataflow(steps: u32) -> Vec<Edge> {
    let mut edges = Vec::new();
    let mut edge = |from: String, to: String, operation: &str| {
        edges.push(Edge { from, to, operation: operation.to_owned() });
    };
    edge("input/x".to_owned(), "forward/x".to_owned(), "the copy of the input");
    for (from, to, operation) in FORWARD {
        edge(format!("forward/{from}"), format!("forward/{to}"), operation);
    }
    for (from, to, operation) in FORWARD.into_iter().rev() {
        let gradient = if to == "L" { "forward/L".to_owned() } else { format!("grad/{to}") };
        let backward = format!("the backward of {operation}");
        for name in PARAMETERS.iter().filter(|name| name.starts_with(operation)) {
            edge(gradient.clone(), format!("grad/{name}"), &backward);
        }
        edge(gradient, format!("grad/{from}"), &backward);
    }
    edge("input/y".to_owned(), "forward/L".to_owned(), "BCELoss");
    edge("forward/L".to_owned(), "step/1/L".to_owned(), "the recording of the loss");
    for (name, z) in PARAMETERS.iter().zip(["z2", "z2", "z3", "z3", "z", "z"]) {
        edge(format!("param/{name}"), format!("forward/{z}"), "the layer");
    }
    for k in 1..=steps {
        for name in PARAMETERS {
            let (loss, after) = (format!("step/{k}/L"), format!("step/{k}/{name}"));
            if k == 1 {
                edge(format!("grad/{name}"), after, "the optimizer's step");
            } else {
                if name == PARAMETERS[0] {
                    let before = format!("step/{}/{name}", k - 1);
                    edge(before, loss.clone(), "the forward of this step");
                }
                edge(loss, after, "the backward and the optimizer of this step");
            }
        }
    }
    edges
}
