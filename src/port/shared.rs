//! A module that has several names in its parent: its calls under all of them are calls of one module.

use std::collections::{HashMap, HashSet};

use super::flat::{Flat, From};

impl Flat {
    /// Gives a module that has no variables of its own the name of another one in the same parent, of the same class, of
    /// which it reads every variable and no other.
    pub(super) fn unite_shared_modules(&mut self) {
        let mut classes = HashMap::<String, String>::new();
        let mut reads = HashMap::<String, HashSet<String>>::new();
        for step in &self.steps {
            let ids = step.arguments.iter().flat_map(|(_, argument)| argument.ids());
            let names = ids.filter_map(|id| match &self.values[id].from {
                From::Variable(name) => Some(name.clone()),
                _ => None,
            });
            let names = names.collect::<HashSet<_>>();
            for module in &step.modules {
                classes.insert(module.name.clone(), module.class.clone());
                reads.entry(module.name.clone()).or_default().extend(names.iter().cloned());
            }
        }
        let variables_of = |module: &str| {
            let within = format!("{module}.");
            let own = self.variables.iter().filter(|variable| variable.name.starts_with(&within));
            own.map(|variable| variable.name.clone()).collect::<HashSet<_>>()
        };
        let parent = |name: &str| name.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned();
        let mut first = HashMap::new();
        for (name, class) in &classes {
            let read = &reads[name];
            if read.is_empty() || !variables_of(name).is_empty() {
                continue;
            }
            let is_it = |other: &&String| {
                *other != name
                    && classes[*other] == *class
                    && parent(other) == parent(name)
                    && variables_of(other) == *read
            };
            if let Some(other) = classes.keys().find(is_it) {
                first.insert(name.clone(), other.clone());
            }
        }
        for module in self.steps.iter_mut().flat_map(|step| &mut step.modules) {
            let known = first.iter().find_map(|(name, first)| {
                let rest = module.name.strip_prefix(name.as_str())?;
                (rest.is_empty() || rest.starts_with('.')).then(|| format!("{first}{rest}"))
            });
            if let Some(known) = known {
                module.name = known;
            }
        }
    }
}
