//! What makes a parameter or a buffer of a class.

use anyhow::{Context, Result};

use super::Port;
use super::class::Class;
use super::flat::Variable;
use super::rust::{FLOAT, kind};

impl Port {
    /// Returns the value that a buffer has in all modules of a class, if the source can have it.
    pub(super) fn value_of(&self, class: &Class, path: &str) -> Option<String> {
        let bodies = self.tree.bodies.iter().zip(&self.classes.of_body);
        let is_of_class = |of: usize| std::ptr::eq(&self.classes.classes[of], class);
        let names = bodies.filter(|(_, of)| is_of_class(**of));
        let names = names.map(|(body, _)| format!("{}{path}", body.prefix()));
        let exists = |name: &String| self.flat.variables.iter().any(|known| known.name == *name);
        let mut values = names.filter(exists).map(|name| self.buffers.get(&name));
        let first = values.next()??;
        let is_same = values.all(|value| value.is_some_and(|value| value == first));
        is_same.then(|| first.value())
    }

    /// Writes what makes a parameter or a buffer, with a start that suits most: a checkpoint takes its place.
    pub(super) fn variable(
        &self,
        variable: &Variable,
        path: &str,
        name: &str,
        sizes: &str,
        class: &Class,
    ) -> Result<String> {
        let ones = name == "running_var"
            || name.ends_with("weight") && self.tree.bodies[class.body].class.contains("Norm");
        let is_matrix = variable.meta.sizes.len() > 1;
        let usual = variable.meta.dtype == FLOAT;
        Ok(match (usual, variable.requires_grad) {
            (true, true) if ones => format!("{path}.ones({name:?}, &[{sizes}])"),
            (true, true) if is_matrix => format!("{path}.kaiming_uniform({name:?}, &[{sizes}])"),
            (true, true) => format!("{path}.zeros({name:?}, &[{sizes}])"),
            (true, false) if ones => format!("{path}.ones_no_train({name:?}, &[{sizes}])"),
            (true, false) => format!("{path}.zeros_no_train({name:?}, &[{sizes}])"),
            (false, trained) => {
                format!("{path}.add({name:?}, {}, {trained})", zeros(variable, sizes)?)
            }
        })
    }
}

/// Writes zeros of a variable's dtype.
pub(super) fn zeros(variable: &Variable, sizes: &str) -> Result<String> {
    let kind = kind(variable.meta.dtype);
    let kind = kind.with_context(|| format!("the dtype of {}", variable.name))?;
    Ok(format!("Tensor::zeros([{sizes}], ({kind}, p.device()))"))
}
