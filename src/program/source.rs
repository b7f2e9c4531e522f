//! The line of Python that an operator comes from.

/// Returns the innermost line of Python in a stack trace that is the user's, such as `net.py:12: return self.fc(x)`, or
/// the innermost line of all where the user's model is a module of PyTorch's.
///
/// `classes` are those of the modules that the operator is in, such as `torch.nn.modules.linear.Linear`. A recording has
/// the names of Python's files without their folders, and these classes tell which files are PyTorch's.
pub(super) fn source(trace: &str, classes: &[&str]) -> Option<String> {
    let frames = frames(trace);
    let of_user = frames.iter().rev().find(|frame| !frame.is_of_pytorch(classes));
    let Frame { place, code, .. } = of_user.or(frames.last())?;
    let place = place.map_or(String::new(), |(file, line)| format!("{file}:{line}: "));
    Some(place + code)
}

/// A line of a stack trace.
struct Frame<'a> {
    /// The file, and the number of the line.
    place: Option<(&'a str, &'a str)>,
    code: &'a str,
}

impl Frame<'_> {
    fn is_of_pytorch(&self, classes: &[&str]) -> bool {
        let Some((file, _)) = self.place else { return false };
        let parts = file.split(['/', '\\']).collect::<Vec<_>>();
        let module = parts.last().and_then(|name| name.strip_suffix(".py"));
        let is_module = |class: &&str| {
            let mut path = class.strip_prefix("torch.").into_iter().flat_map(|of| of.rsplit('.'));
            path.nth(1) == module
        };
        parts.windows(2).any(|two| two == ["site-packages", "torch"])
            || module.is_some() && parts.len() == 1 && classes.iter().any(is_module)
    }
}

/// Returns the frames of a trace, the innermost last. Each is a line such as `File "net.py", line 12, in forward`, and
/// the code below it.
fn frames(trace: &str) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    let mut place = None;
    for line in trace.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let of_file = line.strip_prefix("File \"").and_then(|rest| rest.split_once("\", line "));
        match of_file {
            Some((file, rest)) => place = rest.split(',').next().map(|number| (file, number)),
            None => frames.push(Frame { place: place.take(), code: line }),
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: &str = "torch.nn.modules.linear.Linear";
    const TRACE: &str = "File \"net.py\", line 9, in forward\n    return self.fc(x)\n  File \"linear.py\", line 134, in \
                         forward\n    return F.linear(input, self.weight, self.bias)\n";

    fn of(trace: &str, classes: &[&str]) -> String {
        source(trace, classes).unwrap_or_default()
    }

    #[test]
    fn the_line_is_the_users() {
        let classes = ["__main__.Net", LINEAR];
        assert_eq!(of(TRACE, &classes), "net.py:9: return self.fc(x)");
        let anywhere = TRACE.replace("linear.py", "/v/site-packages/torch/nn/modules/linear.py");
        assert_eq!(of(&anywhere, &[]), "net.py:9: return self.fc(x)");
    }

    #[test]
    fn a_file_of_the_user_may_have_the_name_of_one_of_pytorchs() {
        let own = of(TRACE, &["__main__.Net", "linear.Own"]);
        assert_eq!(own, "linear.py:134: return F.linear(input, self.weight, self.bias)");
        let user =
            TRACE.replace("\"net.py", "\"/home/me/linear.py").replace("\"linear", "\"/x/linear");
        assert!(of(&user, &[LINEAR]).starts_with("/x/linear.py:134: "));
    }

    #[test]
    fn a_model_of_pytorchs_has_its_own_line() {
        let (_, inner) = TRACE.split_once("self.fc(x)\n").unwrap_or_default();
        assert!(of(inner, &[LINEAR]).starts_with("linear.py:134: "));
        assert_eq!(source("x + 1", &[]).as_deref(), Some("x + 1"));
        assert_eq!(source("", &[]), None);
    }
}
