//! The differences that the reader accepts, each with a reason.

use std::ops::Range;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use toml::Spanned;

use super::complex::{self, Parts};
use super::statistics::statistics;
use super::{Comparison, TensorComparison, Tolerance};
use crate::trace::{Pattern, Trace};

/// A list of differences that the reader accepts; the first rule that suffices for a tensor applies.
///
/// A pattern is one as in [`Names`](crate::Names): it matches a module and all below it, or a whole name if it has a
/// slash. A rule holds under every criterion. No tolerance accepts a nan or an infinity that only one side has.
///
/// ```
/// use tch_parity::Accepted;
///
/// let accepted = Accepted::default()
///     .tolerance("grad/conv.bias=atol:1e-6,reason:the port sums in another order")?
///     .ignore("bn.num_batches_tracked=tch's BatchNorm has no such buffer")?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    text: String,
    pattern: Pattern,
    /// The limits of the difference; `None` accepts any, and a tensor that one side lacks.
    within: Option<Tolerance>,
    reason: String,
}

/// A rule in a TOML file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    pattern: String,
    rtol: Option<f64>,
    atol: Option<f64>,
    scaled: Option<f64>,
    reason: String,
}

/// The TOML file: `[[tolerance]]` and `[[ignore]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tolerance: Vec<Spanned<Entry>>,
    #[serde(default)]
    ignore: Vec<Spanned<Entry>>,
}

impl Accepted {
    /// Adds a rule `PATTERN=rtol:R,atol:A,scaled:S,reason:TEXT`. The reason is the last part, and goes to the end.
    ///
    /// With `rtol` or `atol`, each element has to be within `atol + rtol * |expected|`, where the one that is not
    /// given is 0. With `scaled`, the tensor has to be within `scaled * max|expected|`.
    ///
    /// # Errors
    /// Returns an error if the rule is of another form, has no limit, or has no reason.
    pub fn tolerance(self, rule: &str) -> Result<Accepted> {
        let form = || format!("{rule:?} is not PATTERN=rtol:R,atol:A,scaled:S,reason:TEXT");
        // A name can have a = too, and so can a reason.
        let limits = &rule[..rule.find(",reason:").unwrap_or(rule.len())];
        let (pattern, rest) = rule.split_at(limits.rfind('=').with_context(form)?);
        let rest = &rest[1..];
        let (limits, reason) = match rest.strip_prefix("reason:") {
            Some(reason) => ("", reason),
            None => rest.split_once(",reason:").with_context(|| {
                format!("{rule:?} has no reason: add ,reason:TEXT, which the report prints")
            })?,
        };
        let mut entry = Entry {
            pattern: pattern.to_owned(),
            rtol: None,
            atol: None,
            scaled: None,
            reason: reason.to_owned(),
        };
        for limit in limits.split(',').filter(|limit| !limit.is_empty()) {
            let (key, value) = limit.split_once(':').with_context(form)?;
            let value = value.parse::<f64>().with_context(form)?;
            let place = match key {
                "rtol" => &mut entry.rtol,
                "atol" => &mut entry.atol,
                "scaled" => &mut entry.scaled,
                _ => bail!(form()),
            };
            ensure!(place.replace(value).is_none(), "{rule:?} has {key} twice");
        }
        self.add(rule.to_owned(), entry, false)
    }

    /// Adds a rule `PATTERN=REASON`, which accepts any difference, and a tensor that one side lacks.
    ///
    /// # Errors
    /// Returns an error if the rule is of another form or has no reason.
    pub fn ignore(self, rule: &str) -> Result<Accepted> {
        let (pattern, reason) =
            rule.split_once('=').with_context(|| format!("{rule:?} is not PATTERN=REASON"))?;
        let (pattern, reason) = (pattern.to_owned(), reason.to_owned());
        let entry = Entry { pattern, rtol: None, atol: None, scaled: None, reason };
        self.add(rule.to_owned(), entry, true)
    }

    /// Adds the rules of a TOML file: tables `[[tolerance]]` with `pattern`, `rtol`, `atol`, `scaled` and `reason`, and
    /// `[[ignore]]` with `pattern` and `reason`.
    ///
    /// # Errors
    /// Returns an error if the text is of another form. The message says where.
    pub fn toml(mut self, text: &str) -> Result<Accepted> {
        let line = |span: Option<Range<usize>>| {
            let before = span.and_then(|at| text.get(..at.start)).unwrap_or_default();
            format!("line {}", before.matches('\n').count() + 1)
        };
        // The parser's own text has several lines.
        let parsed = toml::from_str::<File>(text);
        let file = parsed.map_err(|err| anyhow!("{}: {}", line(err.span()), err.message()))?;
        let tolerances = file.tolerance.into_iter().map(|entry| (entry, false));
        for (entry, any) in tolerances.chain(file.ignore.into_iter().map(|entry| (entry, true))) {
            let at = line(Some(entry.span()));
            let entry = entry.into_inner();
            self = self.add(entry.pattern.clone(), entry, any).context(at)?;
        }
        Ok(self)
    }

    fn add(mut self, text: String, entry: Entry, any: bool) -> Result<Accepted> {
        let Entry { pattern, rtol, atol, scaled, reason } = entry;
        let limits = [rtol, atol, scaled];
        ensure!(!pattern.is_empty(), "{text:?} has no pattern");
        ensure!(!reason.trim().is_empty(), "{text:?} has no reason, which the report prints");
        ensure!(
            limits.iter().flatten().all(|limit| limit.is_finite() && *limit >= 0.),
            "{text:?} has a limit that is not a number from 0 on"
        );
        ensure!(
            any != limits.iter().any(Option::is_some),
            "{text:?} needs at least one of rtol, atol and scaled as a tolerance, and none to be ignored"
        );
        let by_element = rtol.or(atol).is_some();
        let within = Tolerance {
            rtol: rtol.unwrap_or(0.),
            atol: atol.unwrap_or(if by_element { 0. } else { f64::INFINITY }),
            scaled: scaled.unwrap_or(f64::INFINITY),
        };
        let pattern = Pattern::new(&pattern);
        self.rules.push(Rule { text, pattern, within: (!any).then_some(within), reason });
        Ok(self)
    }
}

impl Comparison {
    /// Lets the tensors pass whose difference is accepted, and lists in `unneeded` the rules that none needed.
    ///
    /// The two traces are those that were compared.
    pub fn accept(&mut self, accepted: &Accepted, actual: &Trace, expected: &Trace) {
        let mut needed = vec![false; accepted.rules.len()];
        for tensor in self.tensors.iter_mut().filter(|tensor| !tensor.passes) {
            let rules = accepted.rules.iter().zip(&mut needed);
            let mut fits = rules.filter(|(rule, _)| rule.pattern.matches(&tensor.name));
            if let Some((rule, needed)) =
                fits.find(|(rule, _)| rule.suffices(tensor, actual, expected))
            {
                *needed = true;
                tensor.passes = true;
                tensor.accepted = Some(rule.reason.clone());
                tensor.ignored = rule.within.is_none();
            }
        }
        let unneeded = accepted.rules.iter().zip(needed).filter(|(_, needed)| !needed);
        self.unneeded = unneeded.map(|(rule, _)| rule.text.clone()).collect();
    }
}

impl Rule {
    fn suffices(&self, tensor: &TensorComparison, actual: &Trace, expected: &Trace) -> bool {
        let Some(within) = self.within else { return true };
        let name = &tensor.name;
        let found = match (actual.get(name), expected.get(name)) {
            _ if tensor.problem.is_some() => None,
            (Some(ours), Some(theirs)) => Some(statistics(&ours, &theirs, Some(within))),
            _ => Parts::of_both(name, actual, expected)
                .map(|both| complex::statistics(&both, Some(within))),
        };
        let Some(found) = found else { return false };
        found.max_abs.is_finite() && found.not_close == 0 && found.scaled <= within.scaled
    }
}
