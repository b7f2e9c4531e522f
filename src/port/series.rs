//! The numbers of the modules of a list: how those that differ between them are computed, or given to `new`.

use super::number::{Hole, Number, Place};

/// How one of the numbers of the modules of a list follows from their place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It is the same for all.
    Same,
    /// It grows by the same step from each to the next.
    Linear,
    /// It is another one for the first.
    First,
    /// Each module has its own, in a list of the calls that make them.
    Each,
    /// Each module has its own, in a slice.
    Slice,
}

/// The largest number of modules that are made by a list of calls, and of the numbers of all of these.
const MAX_CALLS: usize = 8;
const MAX_NUMBERS: usize = 24;
/// The most numbers that differ from module to module and are written as a table.
const MAX_SLICES: usize = 6;
/// The least number of modules of which a rule says more than a list.
const MIN_RULE: usize = 3;

/// Finds the forms of the numbers of a list, of which `numbers` has the series of each list of the class.
pub(super) fn forms(numbers: &[Vec<&[Number]>], lengths: &[usize]) -> Vec<Form> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let is_one_length = lengths.iter().all(|length| *length == longest);
    let forms = numbers.iter().map(|series| {
        let series = series.iter().map(|of_one| filled(of_one)).collect::<Vec<_>>();
        let all = |is: fn(&[Number]) -> bool| series.iter().all(|of_one| is(of_one));
        if all(|series| series.iter().all(|number| *number == series[0])) {
            Form::Same
        } else if longest >= MIN_RULE && all(is_linear) {
            Form::Linear
        } else if (longest >= MIN_RULE || !is_one_length) && all(has_own_first) {
            Form::First
        } else {
            Form::Slice
        }
    });
    let forms = forms.collect::<Vec<_>>();
    let is_rule = forms.iter().all(|form| matches!(form, Form::Same | Form::Linear));
    let is_short = longest <= MAX_CALLS && longest * forms.len() <= MAX_NUMBERS;
    let slices = forms.iter().filter(|form| **form == Form::Slice).count();
    if is_one_length && (is_short || slices > MAX_SLICES) && !is_rule {
        return vec![Form::Each; forms.len()];
    }
    forms
}

fn is_linear(series: &[Number]) -> bool {
    let ints = series.iter().map(|number| match number {
        Number::Int(int) => Some(*int),
        _ => None,
    });
    let Some(ints) = ints.collect::<Option<Vec<_>>>() else { return false };
    ints.windows(3).all(|of| of[1].checked_sub(of[0]) == of[2].checked_sub(of[1]))
}

fn has_own_first(series: &[Number]) -> bool {
    series.iter().skip(1).all(|number| *number == series[1])
}

impl Form {
    /// Returns the numbers that say a series, for each of the lists, and the places that they have in the source.
    pub(super) fn columns(
        self,
        place: &Place,
        hint: &str,
        series: &[&[Number]],
    ) -> Vec<(Place, Hole, Vec<Number>)> {
        let column = |part: usize, hint: String, number: &dyn Fn(&[Number]) -> Number| {
            let place = match place {
                Place::New { field, at, .. } => Place::New { field: field.clone(), at: *at, part },
                other => other.clone(),
            };
            let numbers = series.iter().map(|of_one| number(&filled(of_one))).collect();
            (place, Hole { hint, number: Number::Any }, numbers)
        };
        let of =
            |at: usize| move |series: &[Number]| series.get(at).cloned().unwrap_or(Number::Any);
        let hint = hint.to_owned();
        match self {
            Form::Same => vec![column(0, hint, &of(0))],
            Form::Linear => {
                let step = |series: &[Number]| match series {
                    [Number::Int(first), Number::Int(second), ..] => Number::Int(second - first),
                    _ => Number::Any,
                };
                vec![column(0, hint.clone(), &of(0)), column(1, format!("{hint}_step"), &step)]
            }
            Form::First => {
                vec![column(0, format!("first_{hint}"), &of(0)), column(1, hint, &of(1))]
            }
            Form::Each => {
                let count = series.iter().map(|series| series.len()).max().unwrap_or(0);
                (0..count).map(|at| column(at, hint.clone(), &of(at))).collect()
            }
            Form::Slice => {
                let known = series.iter().flat_map(|of_one| of_one.iter());
                let known = known.clone().find(|number| !matches!(number, Number::Any)).cloned();
                let model = known.unwrap_or(Number::Any);
                let whole = |series: &[Number]| {
                    let known = |number: &Number| match number {
                        Number::Any => model.clone(),
                        number => number.clone(),
                    };
                    Number::Series(series.iter().map(known).collect())
                };
                vec![column(0, plural(&hint), &whole)]
            }
        }
    }
}

/// Lets modules that do not have a number have that of another one.
pub(super) fn filled(series: &[Number]) -> Vec<Number> {
    let mut filled = series.to_vec();
    for at in 0..filled.len() {
        if let Number::Any = filled[at] {
            let is_known = |number: &&Number| !matches!(number, Number::Any);
            let before = filled[..at].iter().rev().find(is_known);
            let known = before.or_else(|| filled[at..].iter().find(is_known)).cloned();
            filled[at] = known.unwrap_or(Number::Any);
        }
    }
    filled
}

/// Returns a name for several of what has a name.
pub(super) fn plural(name: &str) -> String {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let number = &name[stem.len()..];
    match stem.strip_suffix('y') {
        Some(base) if !base.ends_with(['a', 'e', 'o', 'u']) => format!("{base}ies{number}"),
        _ if stem.ends_with('s') => name.to_owned(),
        _ if stem.ends_with('x') => format!("{stem}es{number}"),
        _ => format!("{stem}s{number}"),
    }
}

/// Returns what the number of the modules of a list could be called.
pub(super) fn count_hint(stem: &str) -> String {
    let name = stem.trim_end_matches(['.', '_']).rsplit('.').next().unwrap_or_default();
    match name.parse::<u32>() {
        Err(_) if !stem.ends_with('.') && !name.is_empty() => format!("num_{}", plural(name)),
        Err(_) if !name.is_empty() => format!("num_{name}"),
        _ => "count".to_owned(),
    }
}
