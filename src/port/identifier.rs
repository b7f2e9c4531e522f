//! Names of Python as identifiers of Rust.

/// The words that are no identifiers in Rust.
const KEYWORDS: [&str; 51] = [
    "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern",
    "false", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut",
    "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "type", "unsafe",
    "use", "where", "while", "abstract", "become", "box", "do", "final", "macro", "override",
    "priv", "typeof", "unsized", "virtual", "yield", "try",
];

/// The names that the source of a port uses itself.
const TAKEN: [&str; 6] = ["nn", "tch", "p", "vec", "call", "operator"];

/// The names of types that the source of a port uses itself, or its test.
const TYPES: [&str; 21] = [
    "Tensor", "Kind", "Device", "Result", "Option", "Vec", "String", "Box", "Self", "TchError",
    "Module", "Some", "None", "Value", "Ok", "Err", "Default", "Case", "Program", "Numerics",
    "VarStore",
];

/// Returns whether a word is none that Rust takes as a name.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word)
}

/// Returns the name, or if that is taken the name with the first number from 2 on that is free.
pub(super) fn unique(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    // Rust wants no two underscores in a row.
    let base = name.trim_end_matches('_');
    let mut unique = name.to_owned();
    let mut number = 2;
    while is_taken(&unique) {
        unique = format!("{base}_{number}");
        number += 1;
    }
    unique
}

/// Returns a name for a variable, a field or a function, such as `ln_1` for `LN.1`. Underscores at its ends stay.
pub(super) fn snake(name: &str) -> String {
    let name = name.trim_matches(|c: char| !is_part(c) && c != '_');
    let inner = name.trim_matches('_');
    let start = name.find(inner).unwrap_or(0);
    let (before, after) = match inner {
        "" => return "value".to_owned(),
        inner => (start > 0, start + inner.len() < name.len()),
    };
    let inner = words(inner);
    let start = if before { "_" } else { "" };
    let end = if after { "_" } else { "" };
    let is_taken = is_keyword(&inner) || TAKEN.contains(&inner.as_str());
    match inner.chars().next() {
        Some(first) if first.is_ascii_digit() && !before => format!("m{inner}{end}"),
        _ if is_taken && !before && !after => format!("{inner}_"),
        _ => format!("{start}{inner}{end}"),
    }
}

/// Returns whether names have a character in Python and in Rust.
fn is_part(c: char) -> bool {
    c.is_alphabetic() || c.is_ascii_digit()
}

/// Splits a name into words of lowercase letters.
fn words(name: &str) -> String {
    let mut snake = String::new();
    let mut before = '_';
    let chars = name.chars().collect::<Vec<_>>();
    for (at, c) in chars.iter().enumerate() {
        let next_is_lowercase = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
        let ends_word = before.is_uppercase() || before.is_ascii_digit();
        let starts = c.is_uppercase() && (before.is_lowercase() || ends_word && next_is_lowercase);
        if starts && !snake.is_empty() {
            snake.push('_');
        }
        match c {
            c if is_part(*c) => snake.extend(c.to_lowercase()),
            _ if !snake.ends_with('_') => snake.push('_'),
            _ => {}
        }
        before = *c;
    }
    snake
}

/// Returns a name for a file beside the source, of which Rust reads none with other letters.
pub(super) fn file_name(name: &str) -> String {
    let ascii = name.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect::<String>();
    snake(ascii.trim_matches('_'))
}

/// Returns a name for a type, such as `DenseLayer` for `_DenseLayer` and `SelfAttn` for `self_attn`.
pub(super) fn type_name(name: &str) -> String {
    let mut words = String::new();
    for word in name.split(|c: char| !is_part(c)) {
        let mut letters = word.chars();
        words.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        words.push_str(letters.as_str());
    }
    match words.chars().next() {
        None => "Module1".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("Module{words}"),
        Some(_) if TYPES.contains(&words.as_str()) => format!("{words}Module"),
        Some(_) => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_what_they_are_where_rust_lets_them() {
        let names = ["fc1", "forward_", "_x", "type", "LN.1", "Größe", "層", "2d", "box-reg", "__"];
        let snakes =
            ["fc1", "forward_", "_x", "type_", "ln_1", "größe", "層", "m2d", "box_reg", "value"];
        assert_eq!(names.map(snake), snakes);
        assert_eq!(
            ["_DenseLayer", "größe", "2"].map(type_name),
            ["DenseLayer", "Größe", "Module2"]
        );
        assert_eq!(["Größe", "層"].map(file_name), ["gr_e", "value"]);
    }
}
