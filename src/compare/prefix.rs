//! The hint that the names of one side have a prefix that those of the other lack, such as the `module.` of
//! DataParallel or the `_orig_mod.` of `torch.compile`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Side, TensorComparison};

/// The most parts of a dotted name that a prefix has, such as `module._orig_mod`.
const MAX_PARTS: usize = 2;

/// The most renaming rules that are proposed one by one.
const MAX_RULES: usize = 8;

/// Returns in words the prefix that most of the names have that only one side has, and the renaming that takes it
/// into account, or `None` if less than half of these names would get a partner.
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
    if 2 * count < ours.len().min(theirs.len()) {
        return None;
    }
    let rules = match side {
        Side::Expected => vec![format!("{prefix}.*=*")],
        // A star would also rename what the two sides have in common.
        Side::Actual if count < tensors.len() - ours.len() => {
            let tops = partners.iter().map(|name| name.split('.').next().unwrap_or(name));
            let tops = tops.collect::<BTreeSet<_>>();
            tops.into_iter().map(|top| format!("{top}={prefix}.{top}")).collect()
        }
        Side::Actual => vec![format!("*={prefix}.*")],
    };
    let proposed = rules.iter().take(MAX_RULES).map(|rule| format!("--rename '{rule}'"));
    let mut proposed = proposed.collect::<Vec<_>>().join(" ");
    if rules.len() > MAX_RULES {
        proposed += &format!(", and {} more like these", rules.len() - MAX_RULES);
    }
    let lacks = if side == Side::Actual { Side::Expected } else { Side::Actual };
    let (has, lacks) = (side.name(), lacks.name());
    Some(format!(
        "without the prefix \"{prefix}.\", {count} names of the {has} side are names of the {lacks} side: {proposed}"
    ))
}

struct Found<'a> {
    prefix: &'a str,
    /// The modules' names without the prefix, each with what follows.
    partners: Vec<&'a str>,
}

/// Returns the prefix by which most of `names` become one of `others`.
fn found<'a>(names: &HashSet<&'a str>, others: &HashSet<&str>) -> Option<Found<'a>> {
    let mut by_prefix = BTreeMap::<&str, Vec<&str>>::new();
    for name in names {
        let (section, module) = name.split_at(name.rfind('/').map_or(0, |slash| slash + 1));
        for (dot, _) in module.match_indices('.').take(MAX_PARTS) {
            let rest = &module[dot + 1..];
            if others.contains(&*format!("{section}{rest}")) {
                by_prefix.entry(&module[..dot]).or_default().push(rest);
            }
        }
    }
    let most = by_prefix.into_iter().max_by_key(|(_, partners)| partners.len());
    most.map(|(prefix, partners)| Found { prefix, partners })
}
