//! The hint that the names of one side have a prefix that those of the other lack, such as the `module.` of
//! DataParallel or the `_orig_mod.` of `torch.compile`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::shell::quoted;
use super::{Side, TensorComparison};
use crate::trace::Pattern;

/// The most parts of a dotted name that a prefix has, such as `module._orig_mod`.
const MAX_PARTS: usize = 2;

/// The most renaming rules that are proposed one by one.
const MAX_RULES: usize = 8;

/// Returns in words the prefix that most of the names have that only one side has, and the renaming that takes it
/// into account, or `None` if a single name would get a partner, and that is less than half of these names.
pub(super) fn hint(tensors: &[TensorComparison]) -> Option<String> {
    let lacked_by = |side| {
        let names = tensors.iter().filter(move |tensor| tensor.lacking == Some(side));
        names.map(|tensor| tensor.name.as_str()).collect::<HashSet<_>>()
    };
    let (ours, theirs) = (lacked_by(Side::Expected), lacked_by(Side::Actual));
    let prefixed = [(Side::Actual, found(&ours, &theirs)), (Side::Expected, found(&theirs, &ours))];
    let most = prefixed.into_iter().filter_map(|(side, found)| Some((side, found?)));
    let (side, Found { prefix, partners }) = most.max_by_key(|(_, found)| found.partners.len())?;
    let count = partners.len();
    if count < 2 && 2 * count < ours.len().min(theirs.len()) {
        return None;
    }
    let rules = match side {
        Side::Expected => vec![format!("{prefix}.*=*")],
        // A star would also rename what the two sides have in common.
        Side::Actual if count < tensors.len() - ours.len() => {
            let others = tensors.iter().filter(|tensor| tensor.lacking != Some(Side::Expected));
            let others = others.map(|tensor| &*tensor.name).filter(|name| !partners.contains(name));
            let others = others.collect::<Vec<_>>();
            let modules = partners.iter().map(|name| shortest(name, &others));
            let modules = modules.collect::<BTreeSet<_>>();
            modules.into_iter().map(|module| format!("{module}={prefix}.{module}")).collect()
        }
        Side::Actual => vec![format!("*={prefix}.*")],
    };
    let proposed = rules.iter().take(MAX_RULES).map(|rule| format!("--rename {}", quoted(rule)));
    let mut proposed = proposed.collect::<Vec<_>>().join(" ");
    if rules.len() > MAX_RULES {
        proposed += &format!(", and {} more like these", rules.len() - MAX_RULES);
    }
    let lacks = if side == Side::Actual { Side::Expected } else { Side::Actual };
    let (has, lacks) = (side.name(), lacks.name());
    let names = match count {
        1 => format!("1 name of the {has} side is one"),
        count => format!("{count} names of the {has} side are names"),
    };
    Some(format!("without the prefix \"{prefix}.\", {names} of the {lacks} side: {proposed}"))
}

/// Returns the outermost module of a name, or else the name, that no other name has.
fn shortest<'a>(name: &'a str, others: &[&str]) -> &'a str {
    let own = &name[section(name)..];
    let ends = own.match_indices('.').map(|(dot, _)| dot);
    let mut modules = ends.map(|end| &own[..end]);
    let alone = |module: &&str| {
        let pattern = Pattern::new(module);
        !others.iter().any(|other| pattern.matches(other))
    };
    modules.find(alone).unwrap_or(own)
}

/// Returns where the section of a name ends, which a slash does.
fn section(name: &str) -> usize {
    name.rfind('/').map_or(0, |slash| slash + 1)
}

struct Found<'a> {
    prefix: &'a str,
    /// The names of the side that lacks the prefix.
    partners: HashSet<&'a str>,
}

/// Returns the prefix by which most of `names` become one of `others`.
fn found<'a>(names: &HashSet<&'a str>, others: &HashSet<&'a str>) -> Option<Found<'a>> {
    let mut by_prefix = BTreeMap::<&str, HashSet<&str>>::new();
    for name in names {
        let (section, module) = name.split_at(section(name));
        for (dot, _) in module.match_indices('.').take(MAX_PARTS) {
            let rest = &module[dot + 1..];
            if let Some(partner) = others.get(&*format!("{section}{rest}")) {
                by_prefix.entry(&module[..dot]).or_default().insert(partner);
            }
        }
    }
    let most = by_prefix.into_iter().max_by_key(|(_, partners)| partners.len());
    most.map(|(prefix, partners)| Found { prefix, partners })
}
