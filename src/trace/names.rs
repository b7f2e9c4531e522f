//! The names of a port's modules where they differ from PyTorch's.

use anyhow::{Context, Result, bail, ensure};

use super::pattern::Pattern;

/// A list of rules that turn PyTorch's module names into those of a port; the first that matches a name applies.
///
/// A rule is `EXPECTED=ACTUAL`. It matches a module and every module below it, or a whole name, such as
/// `grad/fc1.weight`, if it has a slash on the left. A `*` on the left matches one part of a dotted name, and the n-th
/// `*` on the right is replaced by what the n-th `*` on the left matched.
///
/// ```
/// use tch_parity::Names;
///
/// let names = Names::new(["embeddings=embed", "layers.*.self_attn=blocks.*.attention"])?;
/// let name = names.of_port("param/layers.3.self_attn.in_proj_weight");
/// assert_eq!(name, "param/blocks.3.attention.in_proj_weight");
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Names {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    text: String,
    pytorch: Pattern,
    port: Vec<String>,
}

impl Names {
    /// Parses renaming rules; the first that matches a name applies.
    ///
    /// # Errors
    /// Returns an error if a rule has no `=`, no name on one side, or more `*` on the right than on the left.
    pub fn new<S: AsRef<str>>(rules: impl IntoIterator<Item = S>) -> Result<Names> {
        let rules = rules.into_iter().map(|rule| {
            let rule = rule.as_ref();
            let (pytorch, port) =
                rule.split_once('=').with_context(|| format!("{rule:?} is not EXPECTED=ACTUAL"))?;
            ensure!(!pytorch.is_empty() && !port.is_empty(), "{rule:?} has no name on one side");
            let pytorch = Pattern::new(pytorch);
            let port = port.split('.').map(str::to_owned).collect::<Vec<_>>();
            ensure!(
                port.iter().filter(|part| *part == "*").count() <= pytorch.stars(),
                "{rule:?} has more * on the right than on the left"
            );
            Ok(Rule { text: rule.to_owned(), pytorch, port })
        });
        Ok(Names { rules: rules.collect::<Result<_>>()? })
    }

    /// Returns the port's name of a tensor of a case, such as `grad/fc1.weight` or `step/2/forward/fc1[0]`.
    pub fn of_port(&self, name: &str) -> String {
        let found = self.rules.iter().find_map(|rule| Some((&rule.port, rule.pytorch.of(name)?)));
        let Some((port, found)) = found else { return name.to_owned() };
        let mut stars = found.stars.into_iter();
        let renamed =
            port.iter().map(|p| if p == "*" { stars.next().unwrap_or_default() } else { p });
        let renamed = renamed.chain(found.below).collect::<Vec<_>>().join(".");
        format!("{}{renamed}{}", found.before, found.call)
    }

    /// Returns an error unless each rule renames one of these names, which a mistyped one does not.
    pub(super) fn ensure_used<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<()> {
        let mut used = vec![false; self.rules.len()];
        for name in names.clone() {
            if let Some(at) = self.rules.iter().position(|rule| rule.pytorch.matches(name)) {
                used[at] = true;
            }
        }
        let Some(unused) = used.iter().position(|used| !used) else { return Ok(()) };
        let Rule { text, pytorch, .. } = &self.rules[unused];
        match names.clone().any(|name| pytorch.matches(name)) {
            true => bail!(
                "the renaming rule {text:?} is never reached: an earlier one renames all that it matches"
            ),
            false => bail!("the renaming rule {text:?} matches no tensor"),
        }
    }
}
