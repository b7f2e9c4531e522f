//! The names of a port's modules where they differ from PyTorch's.

use anyhow::{Context, Result, ensure};

/// A list of rules that turn PyTorch's module names into those of a port; the first that matches a name applies.
///
/// A rule is `EXPECTED=ACTUAL`. It matches a module and every module below it. A `*` on the left matches one part
/// of a dotted name, and the n-th `*` on the right is replaced by what the n-th `*` on the left matched.
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
    rules: Vec<(Vec<String>, Vec<String>)>,
}

impl Names {
    /// Parses renaming rules; the first that matches a name applies.
    ///
    /// # Errors
    /// Returns an error if a rule has no `=`, no name on one side, or more `*` on the right than on the left.
    pub fn new<S: AsRef<str>>(rules: impl IntoIterator<Item = S>) -> Result<Names> {
        let parts = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
        let stars = |parts: &[String]| parts.iter().filter(|part| *part == "*").count();
        let rules = rules.into_iter().map(|rule| {
            let rule = rule.as_ref();
            let (pytorch, port) =
                rule.split_once('=').with_context(|| format!("{rule:?} is not EXPECTED=ACTUAL"))?;
            ensure!(!pytorch.is_empty() && !port.is_empty(), "{rule:?} has no name on one side");
            let (pytorch, port) = (parts(pytorch), parts(port));
            ensure!(
                stars(&port) <= stars(&pytorch),
                "{rule:?} has more * on the right than on the left"
            );
            Ok((pytorch, port))
        });
        Ok(Names { rules: rules.collect::<Result<_>>()? })
    }

    /// Returns the port's name of a tensor of a case, such as `grad/fc1.weight` or `step/2/forward/fc1[0]`.
    pub fn of_port(&self, name: &str) -> String {
        // Sections end in a slash, and no module's name has one.
        let module = name.rfind('/').map_or(0, |slash| slash + 1);
        let (section, module) = name.split_at(module);
        // A suffix that tells calls and outputs of one module apart is not part of the module's name.
        let end = module.find(['@', '[']).unwrap_or(module.len());
        let (module, call) = module.split_at(end);
        let parts = module.split('.').collect::<Vec<_>>();
        let fits = |pytorch: &[String]| {
            pytorch.len() <= parts.len()
                && pytorch.iter().zip(&parts).all(|(p, part)| p == "*" || p == part)
        };
        let Some((pytorch, port)) = self.rules.iter().find(|(pytorch, _)| fits(pytorch)) else {
            return name.to_owned();
        };
        let mut stars =
            pytorch.iter().zip(&parts).filter(|(p, _)| *p == "*").map(|(_, part)| *part);
        let renamed =
            port.iter().map(|p| if p == "*" { stars.next().unwrap_or_default() } else { p });
        let below = parts[pytorch.len()..].iter().copied();
        format!("{section}{}{call}", renamed.chain(below).collect::<Vec<_>>().join("."))
    }
}
