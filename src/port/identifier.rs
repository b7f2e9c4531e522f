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

/// Returns a name for a variable, a field or a function, such as `ln_1` for `LN.1`.
pub(super) fn snake(name: &str) -> String {
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
            c if c.is_ascii_alphanumeric() => snake.extend(c.to_lowercase()),
            _ if !snake.ends_with('_') => snake.push('_'),
            _ => {}
        }
        before = *c;
    }
    let snake = snake.trim_matches('_');
    match snake.chars().next() {
        None => "value".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("m{snake}"),
        Some(_) if is_keyword(snake) || TAKEN.contains(&snake) => format!("{snake}_"),
        Some(_) => snake.to_owned(),
    }
}

/// Returns a name for a type, such as `DenseLayer` for `_DenseLayer` and `SelfAttn` for `self_attn`.
pub(super) fn type_name(name: &str) -> String {
    let mut words = String::new();
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let (first, rest) = word.split_at(1);
        words += &first.to_uppercase();
        words += rest;
    }
    match words.chars().next() {
        None => "Module1".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("Module{words}"),
        Some(_) if TYPES.contains(&words.as_str()) => format!("{words}Module"),
        Some(_) => words,
    }
}
