//! The numbers that differ between the calls of a class: which of them are one argument of its `new`.

use std::collections::{HashMap, HashSet};

use super::class::{Field, FieldOf};
use super::number::{Hole, Number, Place};
use super::outline::Shape;
use super::series::{self, Form};

/// What the `new` of a class takes.
pub(super) struct Numbers {
    /// Each argument, with the numbers of the calls.
    pub(super) arguments: Vec<(Hole, Vec<Number>)>,
    /// Which of the arguments a number is.
    pub(super) argument_at: HashMap<Place, usize>,
    /// What the numbers of the modules of each list are.
    pub(super) lists: HashMap<String, Vec<Form>>,
}

/// Works out what the `new` of a class takes, of which the calls are given.
pub(super) fn numbers_of(instances: &[(usize, Shape)]) -> Numbers {
    let is_layer = instances[0].1.layer.is_some();
    let (columns, lists) = columns(instances);
    let varying_slices = columns
        .iter()
        .filter(|(_, _, numbers)| matches!(numbers[0], Number::Series(_)) && varies(numbers));
    let varying_slices = varying_slices.filter_map(|(place, ..)| place.field());
    let varying_slices = varying_slices.map(str::to_owned).collect::<HashSet<_>>();
    let mut arguments = Vec::<(Hole, Vec<Number>)>::new();
    let mut argument_at = HashMap::new();
    for (place, hole, numbers) in columns {
        let of_list = place.field().is_some_and(|field| varying_slices.contains(field));
        let is_slice = matches!(numbers[0], Number::Series(_));
        // The slices of a list say its length, and either all of them are given or none.
        let is_argument = match place {
            Place::Count { .. } => varies(&numbers) && !of_list,
            _ => is_layer || varies(&numbers) || is_slice && of_list,
        };
        if !is_argument {
            continue;
        }
        let numbers = with_one_type(numbers);
        let known = arguments.iter().position(|(known, of)| {
            are_one(of, &numbers) && (!is_layer || known.hint == hole.hint)
        });
        let argument = known.unwrap_or(arguments.len());
        if argument == arguments.len() {
            let model = numbers.iter().find(|number| !is_empty(number)).unwrap_or(&numbers[0]);
            arguments.push((Hole { number: model.clone(), ..hole }, numbers));
        } else {
            let (known, of) = &mut arguments[argument];
            for (known, number) in of.iter_mut().zip(numbers) {
                if let Number::Any = known {
                    *known = number;
                }
            }
            if !is_layer && vagueness(&known.hint) > vagueness(&hole.hint) {
                known.hint = hole.hint;
            }
        }
        argument_at.insert(place, argument);
    }
    Numbers { arguments, argument_at, lists }
}

/// The numbers of calls, place by place.
type Columns = Vec<(Place, Hole, Vec<Number>)>;

/// Lists the numbers of calls that are the same code, and the forms of those of each list.
fn columns(instances: &[(usize, Shape)]) -> (Columns, HashMap<String, Vec<Form>>) {
    let shape = &instances[0].1;
    let column = |at: usize| instances.iter().map(move |(_, shape)| &shape.holes[at].1.number);
    let series = |at: usize| column(at).map(Number::series).collect::<Vec<_>>();
    let is_of_list = |place: &Place| {
        let is_list = |field: &&Field| matches!(field.what, FieldOf::List { .. });
        let mut lists = shape.fields.iter().filter(is_list);
        matches!(place, Place::New { field, .. } if lists.any(|list| list.path == *field))
    };
    let mut columns = Vec::new();
    let mut lists = HashMap::<String, Vec<Form>>::new();
    for (at, (place, hole)) in shape.holes.iter().enumerate() {
        let (Place::New { field, at: argument, .. }, true) = (place, is_of_list(place)) else {
            columns.push((place.clone(), hole.clone(), column(at).cloned().collect()));
            continue;
        };
        let forms = lists.entry(field.clone()).or_insert_with(|| {
            let is_of_field =
                |(place, _): &&(Place, Hole)| is_of_list(place) && place.field() == Some(field);
            let count = shape.holes.iter().filter(is_of_field).count();
            let numbers = (at..at + count).map(series).collect::<Vec<_>>();
            let lengths = numbers[0].iter().map(|series| series.len()).collect::<Vec<_>>();
            series::forms(&numbers, &lengths)
        });
        columns.extend(forms[*argument].columns(place, &hole.hint, &series(at)));
    }
    (columns, lists)
}

fn varies(numbers: &[Number]) -> bool {
    numbers.iter().any(|number| numbers.iter().any(|other| number != other))
}

/// Returns whether numbers of two places are one argument. Where some calls do not have one of the places, the others
/// have to say more than that of one number.
fn are_one(one: &[Number], two: &[Number]) -> bool {
    let known = one.iter().zip(two).filter(|pair| !is_any(pair.0) && !is_any(pair.1));
    let known = known.map(|(number, _)| number.clone()).collect::<Vec<_>>();
    one == two && (known.len() == one.len() || varies(&known))
}

fn is_any(number: &Number) -> bool {
    matches!(number, Number::Any)
}

fn is_empty(number: &Number) -> bool {
    match number {
        Number::Any => true,
        Number::Series(series) => series.iter().all(is_empty),
        _ => false,
    }
}

/// Lets all numbers be floats if one of them is.
fn with_one_type(numbers: Vec<Number>) -> Vec<Number> {
    let is_float = numbers.iter().any(|number| matches!(number, Number::Float(_)));
    let as_float = |number| match number {
        Number::Int(int) if is_float => Number::Float(int as f64),
        other => other,
    };
    numbers.into_iter().map(as_float).collect()
}

/// Returns how little a name says of a number.
fn vagueness(hint: &str) -> u8 {
    match hint {
        "size" | "shape" | "dim" => 2,
        "features" | "rows" | "columns" => 1,
        _ => 0,
    }
}
