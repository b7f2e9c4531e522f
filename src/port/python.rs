//! What a program says of its Python: lines of source, and the names of arguments and variables in them.

use super::targets::Target;
use crate::program::nested::Spec;

/// A line of Python in a call's stack.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Frame {
    pub(super) file: String,
    pub(super) line: u32,
    /// The name of the function that the line is in.
    pub(super) function: String,
    pub(super) source: String,
}

/// Reads a text such as `File "net.py", line 7, in forward\n    h = self.fc1(x)`, the outermost call first. Lists the
/// line of each `forward`, and behind it those of the functions that this `forward` calls one in the other.
pub(super) fn frames(trace: &str) -> Vec<Vec<Frame>> {
    let mut forwards = Vec::<Vec<Frame>>::new();
    for line in trace.lines().map(str::trim) {
        let Some(place) = line.strip_prefix("File \"") else {
            let last = forwards.last_mut().and_then(|frames| frames.last_mut());
            if let Some(frame) = last.filter(|frame| frame.source.is_empty()) {
                line.clone_into(&mut frame.source);
            }
            continue;
        };
        let (file, rest) = place.split_once("\", line ").unwrap_or((place, ""));
        let (number, function) = rest.split_once(", in ").unwrap_or((rest, "forward"));
        let line = number.parse().unwrap_or(0);
        let function = function.to_owned();
        let frame = Frame { file: file.to_owned(), line, function, source: String::new() };
        match forwards.last_mut() {
            Some(frames) if frame.function != "forward" => frames.push(frame),
            _ => forwards.push(vec![frame]),
        }
    }
    forwards
}

/// The longest line that is shown.
const MAX_LINE: usize = 110;

/// Returns a line, or its beginning if it is long.
pub(super) fn cut(line: &str) -> String {
    match line.char_indices().nth(MAX_LINE) {
        Some((at, _)) => format!("{} …", line[..at].trim_end()),
        None => line.to_owned(),
    }
}

/// Returns whether a line is a statement, or the beginning of one, and not a part of a call that begins above it.
pub(super) fn is_statement(source: &str) -> bool {
    let source = without_comment(source);
    let closes = end_of_brackets(source).is_some();
    // What has a comma outside of brackets and assigns or returns nothing is a list of arguments.
    let is_list = !assigns(source) && !source.starts_with("return ") && parts(source).len() > 1;
    let starts = ["for ", "with ", "def ", "lambda "];
    !closes && (!is_list || starts.iter().any(|start| source.starts_with(start)))
}

/// Returns a line without the comment at its end.
fn without_comment(source: &str) -> &str {
    let mut quote = None;
    let comment = source.char_indices().find(|(_, c)| {
        match (quote, c) {
            (Some(open), c) if open == *c => quote = None,
            (None, '\'' | '"') => quote = Some(*c),
            _ => {}
        }
        *c == '#' && quote.is_none()
    });
    source[..comment.map_or(source.len(), |(at, _)| at)].trim_end()
}

/// Returns a line as a comment shows it, without Python's own comment: of a statement of several lines, a program has
/// the first.
pub(super) fn shown(source: &str) -> String {
    let source = cut(without_comment(source));
    match source.chars().last() {
        Some('(') => format!("{source}…)"),
        Some('[') => format!("{source}…]"),
        Some('{') => format!("{source}…}}"),
        Some(',') => format!("{source} …"),
        _ => source,
    }
}

/// Returns the variables that a line assigns to, such as `q` and `k` of `q, k = self.heads(x)`; none of `return x`, and
/// none of what is no simple assignment.
pub(super) fn assigned(source: &str) -> Option<Target> {
    let at = assignment(source)?;
    // A list, a dict or a tuple of values is none of them.
    let right = source[at + 1..].trim_start();
    if right.starts_with(['[', '{']) || !source[..at].contains(',') && parts(right).len() > 1 {
        return None;
    }
    let left = source[..at].trim_end_matches(['+', '-', '*', '/', '@', '%', '&', '|', '^']);
    // The last of `a = b = c` is the first.
    Target::read(left)
}

/// Lists the statements of a line.
pub(super) fn statements(source: &str) -> Vec<&str> {
    let mut quote = None;
    let mut depth = 0;
    let statements = without_comment(source).split(|c| {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) => depth += deeper(c),
            _ => {}
        }
        c == ';' && depth == 0 && quote.is_none()
    });
    statements.map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

/// Returns the name of the outermost call that a statement assigns, such as `view` of `y = self.fc(x).view(2, 3)`, or
/// the operator's that its arithmetic is.
pub(super) fn outermost(statement: &str) -> Option<&str> {
    let right = expression(statement);
    let mut depth = 0;
    let (mut last_call, mut sum, mut product) = (None, None, None);
    let mut before = ' ';
    for (at, c) in right.char_indices() {
        // A sign is no operator.
        let is_operand = before.is_alphanumeric() || matches!(before, '_' | ')' | ']');
        match c {
            '(' if depth == 0 => last_call = Some(at),
            '+' if depth == 0 && is_operand => sum = Some("add"),
            '-' if depth == 0 && is_operand => sum = Some("sub"),
            '*' if depth == 0 && is_operand => product = Some("mul"),
            '/' if depth == 0 && is_operand => product = Some("div"),
            '@' if depth == 0 && is_operand => product = Some("matmul"),
            _ => {}
        }
        depth += deeper(c);
        before = if c == ' ' { before } else { c };
    }
    sum.or(product).or_else(|| {
        let called = &right[..last_call.filter(|_| right.ends_with(')'))?];
        called.rsplit('.').next().filter(|name| is_identifier(name))
    })
}

/// Returns whether a line assigns to something.
pub(super) fn assigns(source: &str) -> bool {
    assignment(source).is_some()
}

/// Returns the place of the `=` of an assignment, outside of brackets.
fn assignment(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            b'\'' | b'"' | b'#' => return None,
            b'=' if depth == 0 => {
                let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
                let compares = matches!(before, b'=' | b'!' | b'<' | b'>' | b':');
                return (!compares && bytes.get(at + 1) != Some(&b'=')).then_some(at);
            }
            _ => {}
        }
    }
    None
}

pub(super) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_')
}

/// Returns what stands right of an assignment or of `return`.
fn expression(source: &str) -> &str {
    let right = assignment(source).map_or(source, |at| &source[at + 1..]).trim();
    right.strip_prefix("return ").unwrap_or(right).trim()
}

/// Lists what a line gives to a method or function of a name, such as `b` and `2 * t` of `x.view(b, 2 * t)` to `view`,
/// also where it is a list; none where the line calls it several times.
pub(super) fn given_to<'a>(source: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let call = format!(".{name}(");
    let (_, after) = source.split_once(&call).filter(|(_, after)| !after.contains(&call))?;
    let arguments = &after[..end_of_brackets(after)?];
    let inner = arguments.trim();
    let list = [('(', ')'), ('[', ']')].iter().find_map(|brackets| {
        let inner = inner.strip_prefix(brackets.0)?;
        Some(&inner[..end_of_brackets(inner)?])
    });
    Some(parts(list.unwrap_or(arguments)).into_iter().map(str::trim).collect())
}

/// Returns where the bracket closes that is open at the start.
fn end_of_brackets(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.find(|c| {
        depth += deeper(c);
        depth < 0
    })
}

/// Returns by how many brackets what follows a character is deeper.
fn deeper(c: char) -> i32 {
    match c {
        '(' | '[' | '{' => 1,
        ')' | ']' | '}' => -1,
        _ => 0,
    }
}

/// Splits at the commas outside of brackets.
pub(super) fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        depth += deeper(c);
        c == ',' && depth == 0
    })
    .collect()
}

/// Returns the name of the one argument of a call such as `self.fc1(x)`, or of the receiver of `x.relu()`.
pub(super) fn only_operand(source: &str) -> Option<&str> {
    if statements(source).len() > 1 {
        return None;
    }
    let (called, arguments) = expression(source).strip_suffix(')')?.split_once('(')?;
    if is_identifier(arguments) {
        return Some(arguments);
    }
    let (receiver, _) = called.split_once('.')?;
    (is_identifier(receiver) && !["self", "torch", "F", "nn"].contains(&receiver))
        .then_some(receiver)
}

/// Returns the names of both operands of an expression such as `x + residual`.
pub(super) fn operands(source: &str) -> Option<[&str; 2]> {
    if statements(source).len() > 1 {
        return None;
    }
    let right = expression(source);
    let (a, b) =
        [" + ", " - ", " * ", " / ", " @ "].iter().find_map(|sign| right.split_once(sign))?;
    (is_identifier(a) && is_identifier(b)).then_some([a, b])
}

/// Lists a name for each part of what a call of a module returns, such as `1.0` for `h` in `y, (h, c)`.
pub(super) fn places(out_spec: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(spec) = Spec::read(out_spec) {
        leaves(&spec, "", &mut names);
    }
    names
}

/// Lists a name for each leaf, such as `results.h`.
fn leaves(spec: &Spec, name: &str, to: &mut Vec<String>) {
    if spec.r#type.is_none() {
        to.push(name.to_owned());
        return;
    }
    let keys = spec.keys();
    for (at, child) in spec.children_spec.iter().enumerate() {
        let part = keys.get(at).cloned().unwrap_or_else(|| at.to_string());
        let full = if name.is_empty() { part } else { format!("{name}.{part}") };
        leaves(child, &full, to);
    }
}

/// Lists the names of `forward`'s arguments, a name for each tensor or number in them. `positional` has the names of the
/// arguments that are given without one; where it is too short, a name is empty.
pub(super) fn argument_names(in_spec: &str, positional: &[String]) -> Vec<String> {
    let Some(spec) = Spec::read(in_spec) else { return Vec::new() };
    let [arguments, keywords] = &spec.children_spec[..] else { return Vec::new() };
    let mut names = Vec::new();
    for (at, argument) in arguments.children_spec.iter().enumerate() {
        match positional.get(at) {
            Some(name) => leaves(argument, name, &mut names),
            None if argument.r#type.is_none() => names.push(String::new()),
            None => leaves(argument, "argument", &mut names),
        }
    }
    for (key, keyword) in keywords.keys().iter().zip(&keywords.children_spec) {
        leaves(keyword, key, &mut names);
    }
    names
}

/// Lists a name for each part of an output that is a dict, a dataclass, or a tuple with these in it; none for another
/// one.
pub(super) fn output_names(out_spec: &str) -> Vec<String> {
    let Some(spec) = Spec::read(out_spec) else { return Vec::new() };
    let mut names = Vec::new();
    leaves(&spec, "", &mut names);
    let last = |name: &String| name.rsplit('.').next().unwrap_or(name).to_owned();
    let keys = names.iter().map(last).collect::<Vec<_>>();
    let is_number = |key: &String| key.parse::<u32>().is_ok();
    if keys.iter().all(|key| key.is_empty() || is_number(key)) {
        return Vec::new();
    }
    let named = |(at, key): (usize, &String)| {
        let is_one = keys.iter().filter(|other| *other == key).count() == 1;
        if is_number(key) || !is_one { format!("output_{at}") } else { key.clone() }
    };
    keys.iter().enumerate().map(named).collect()
}
