//! The targets of an assignment in Python, such as `y, (h, _)`, and which parts of a value they are.

use super::flat::Id;
use super::python::{is_identifier, parts};

/// A target.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    Name(String),
    /// That of `*rest`.
    Rest(String),
    Several(Vec<Target>),
}

impl Target {
    /// Reads what stands left of a `=`. Returns `None` for a target that is no variable, such as `x[0]`.
    pub(super) fn read(text: &str) -> Option<Target> {
        let text = text.trim();
        let inner = [('(', ')'), ('[', ']')].iter().find_map(|(open, close)| {
            let inner = text.strip_prefix(*open)?.strip_suffix(*close)?;
            // The brackets of `(a, b), (c, d)` are not around it.
            (parts(text).len() == 1).then_some(inner)
        });
        let list = inner.unwrap_or(text);
        let parts = parts(list);
        if inner.is_some() || parts.len() > 1 {
            let targets = parts.iter().filter(|part| !part.trim().is_empty());
            return targets
                .map(|part| Target::read(part))
                .collect::<Option<_>>()
                .map(Target::Several);
        }
        let (starred, name) = match text.strip_prefix('*') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.split(':').next().unwrap_or(name).trim();
        let name = name.strip_prefix("self.").unwrap_or(name);
        let make = if starred { Target::Rest } else { Target::Name };
        is_identifier(name).then(|| make(name.to_owned()))
    }

    /// Lists the names in their order.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Target::Name(name) | Target::Rest(name) => vec![name.clone()],
            Target::Several(targets) => targets.iter().flat_map(Target::names).collect(),
        }
    }

    /// Finds the names that it has for the parts of a value. The place of each part says where it stands in tuples, such
    /// as `1.0` for `h` in `y, (h, c)`.
    pub(super) fn of_parts(&self, parts: &[(&str, Id)]) -> Vec<(Id, String)> {
        match self {
            Target::Name(name) => match parts {
                [(_, id)] if name != "_" => vec![(*id, name.clone())],
                _ => Vec::new(),
            },
            Target::Rest(name) if name == "_" => Vec::new(),
            Target::Rest(name) => parts.iter().map(|(_, id)| (*id, name.clone())).collect(),
            Target::Several(targets) => {
                let first = |place: &str| place.split('.').next()?.parse::<usize>().ok();
                let places = parts.iter().map(|(place, id)| Some((first(place)?, *place, *id)));
                let Some(places) = places.collect::<Option<Vec<_>>>() else { return Vec::new() };
                let count = places.iter().map(|(at, ..)| at + 1).max().unwrap_or(0);
                let more = count.saturating_sub(targets.len());
                let mut from = 0;
                let mut found = Vec::new();
                for target in targets {
                    let is_rest = matches!(target, Target::Rest(_));
                    let end = if is_rest { from + more + 1 } else { from + 1 };
                    let of_target = places.iter().filter(|(at, ..)| (from..end).contains(at));
                    let inner = of_target.map(|(_, place, id)| {
                        (place.split_once('.').map_or("", |(_, inner)| inner), *id)
                    });
                    found.extend(target.of_parts(&inner.collect::<Vec<_>>()));
                    from = end;
                }
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(target: &str, places: &[&str]) -> Vec<(Id, String)> {
        let parts = places.iter().enumerate().map(|(id, place)| (*place, id));
        let parts = parts.collect::<Vec<_>>();
        Target::read(target).map(|target| target.of_parts(&parts)).unwrap_or_default()
    }

    #[test]
    fn names_are_those_of_the_parts_at_their_places() {
        let name = |id, name: &str| (id, name.to_owned());
        let of_lstm = ["0", "1.0", "1.1"];
        assert_eq!(named("y, (h, _)", &of_lstm), [name(0, "y"), name(1, "h")]);
        assert_eq!(named("(_, [h, c])", &of_lstm), [name(1, "h"), name(2, "c")]);
        // The state has no name as one tensor.
        assert_eq!(named("y, state", &of_lstm), [name(0, "y")]);
        // What is none has no part.
        assert_eq!(named("y, weights, more", &["0", "2"]), [name(0, "y"), name(1, "more")]);
        let of_four = ["0", "1", "2", "3"];
        assert_eq!(
            named("a, *b, c", &of_four),
            [(0, "a"), (1, "b"), (2, "b"), (3, "c")].map(|(id, of)| name(id, of))
        );
        assert_eq!(named("*_, c", &of_four), [name(3, "c")]);
        assert_eq!(Target::read("x[0], y"), None);
    }
}
