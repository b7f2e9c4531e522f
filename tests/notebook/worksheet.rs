//! The worksheet is correct, and it says where a run is not.

#![cfg(feature = "libtorch")]

use std::fs;
use std::path::Path;

use crate::common::{ROOT, data, pytorch, scratch, seed, stdout, tch_parity};
use tch::{Kind, Tensor};
use tch_parity::worksheet::Worksheet;
use tch_parity::{Case, Replay, Trace};

/// Computes the values of the notebook's blanks from the definitions: x = (1, -1), y = 0, and the notebook's
/// weights. The numbers that are not integers come from the sigmoid of z = 1.
fn blanks() -> Vec<String> {
    let y_hat = 1. / (1. + (-1f64).exp());
    let loss = -(1. - y_hat).ln();
    let (slope, by_y_hat) = (y_hat * (1. - y_hat), 1. / (1. - y_hat));
    let line = |formula: &str, value: &str| format!("{formula} {value}");
    vec![
        line("z⁽²⁾ⱼ = Σᵢ w⁽¹⁾ᵢⱼ xᵢ + b⁽¹⁾ⱼ", "[[ 1., -1.]]"),
        line("h⁽²⁾ⱼ = max{z⁽²⁾ⱼ, 0}", "[[1., 0.]]"),
        line("z⁽³⁾ₖ = Σⱼ w⁽²⁾ⱼₖ h⁽²⁾ⱼ + b⁽²⁾ₖ", "[[ 1., -1.,  1.]]"),
        line("h⁽³⁾ₖ = max{z⁽³⁾ₖ, 0}", "[[1., 0., 1.]]"),
        line("z = Σₖ w⁽³⁾ₖ h⁽³⁾ₖ + b⁽³⁾", "[[1.]]"),
        line("ŷ = σ(z)", &format!("[[{y_hat:.4}]]")),
        line("L = −[y log ŷ + (1 − y) log (1 − ŷ)]", &format!("{loss:.4}")),
        line("∂z⁽²⁾ⱼ/∂w⁽¹⁾ᵢⱼ = xᵢ", "[[ 1., -1.]]"),
        line("∂z⁽²⁾ⱼ/∂xᵢ = w⁽¹⁾ᵢⱼ", "[[1., 0.], [0., 1.]]"),
        line("∂h⁽²⁾ⱼ/∂z⁽²⁾ⱼ = 1(z⁽²⁾ⱼ > 0)", "[[1., 0.]]"),
        line("∂z⁽³⁾ₖ/∂w⁽²⁾ⱼₖ = h⁽²⁾ⱼ", "[[1., 0.]]"),
        line("∂z⁽³⁾ₖ/∂h⁽²⁾ⱼ = w⁽²⁾ⱼₖ", "[[ 1.,  1.], [-1.,  1.], [ 1.,  0.]]"),
        line("∂h⁽³⁾ₖ/∂z⁽³⁾ₖ = 1(z⁽³⁾ₖ > 0)", "[[1., 0., 1.]]"),
        line("∂z/∂w⁽³⁾ₖ = h⁽³⁾ₖ", "[[1., 0., 1.]]"),
        line("∂z/∂h⁽³⁾ₖ = w⁽³⁾ₖ", "[[ 1., -1.,  0.]]"),
        line("∂ŷ/∂z = ŷ (1 − ŷ)", &format!("[[{slope:.4}]]")),
        line("∂L/∂ŷ = −[y/ŷ − (1 − y)/(1 − ŷ)]", &format!("[[{by_y_hat:.4}]]")),
    ]
}

/// A gradient, the product that gives it, and its elements in numbers.
type Derivation = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The four equations that the notebook leaves open, and the gradients that it prints beside them. `d` is
/// ŷ − y.
const GRADIENTS: [Derivation; 12] = [
    ("∂L/∂z", "∂L/∂ŷ · ∂ŷ/∂z", &[("", "3.7183 · 0.1966 = d")]),
    (
        "∂L/∂w⁽³⁾ₖ",
        "∂L/∂z · ∂z/∂w⁽³⁾ₖ",
        &[("∂L/∂w⁽³⁾₁", "d · 1 = d"), ("∂L/∂w⁽³⁾₂", "d · 0 = 0"), ("∂L/∂w⁽³⁾₃", "d · 1 = d")],
    ),
    ("∂L/∂b⁽³⁾", "∂L/∂z", &[("", "d")]),
    (
        "∂L/∂h⁽³⁾ₖ",
        "∂L/∂z · ∂z/∂h⁽³⁾ₖ",
        &[("∂L/∂h⁽³⁾₁", "d · 1 = d"), ("∂L/∂h⁽³⁾₂", "d · (−1) = −d"), ("∂L/∂h⁽³⁾₃", "d · 0 = 0")],
    ),
    (
        "∂L/∂z⁽³⁾ₖ",
        "∂L/∂z · ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ",
        &[
            ("∂L/∂z⁽³⁾₁", "d · 1 · 1 = d"),
            ("∂L/∂z⁽³⁾₂", "d · (−1) · 0 = 0"),
            ("∂L/∂z⁽³⁾₃", "d · 0 · 1 = 0"),
        ],
    ),
    (
        "∂L/∂w⁽²⁾ⱼₖ",
        "∂L/∂z · ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ · ∂z⁽³⁾ₖ/∂w⁽²⁾ⱼₖ",
        &[
            ("∂L/∂w⁽²⁾₁₁", "d · 1 · 1 · 1 = d"),
            ("∂L/∂w⁽²⁾₂₁", "d · 1 · 1 · 0 = 0"),
            ("∂L/∂w⁽²⁾₁₂", "d · (−1) · 0 · 1 = 0"),
            ("∂L/∂w⁽²⁾₂₂", "d · (−1) · 0 · 0 = 0"),
            ("∂L/∂w⁽²⁾₁₃", "d · 0 · 1 · 1 = 0"),
            ("∂L/∂w⁽²⁾₂₃", "d · 0 · 1 · 0 = 0"),
        ],
    ),
    (
        "∂L/∂b⁽²⁾ₖ",
        "∂L/∂z · ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ",
        &[
            ("∂L/∂b⁽²⁾₁", "d · 1 · 1 = d"),
            ("∂L/∂b⁽²⁾₂", "d · (−1) · 0 = 0"),
            ("∂L/∂b⁽²⁾₃", "d · 0 · 1 = 0"),
        ],
    ),
    (
        "∂L/∂h⁽²⁾ⱼ",
        "∂L/∂z · (Σₖ ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ · ∂z⁽³⁾ₖ/∂h⁽²⁾ⱼ)",
        &[
            ("∂L/∂h⁽²⁾₁", "d · (1 · 1 · 1 + (−1) · 0 · (−1) + 0 · 1 · 1) = d"),
            ("∂L/∂h⁽²⁾₂", "d · (1 · 1 · 1 + (−1) · 0 · 1 + 0 · 1 · 0) = d"),
        ],
    ),
    (
        "∂L/∂z⁽²⁾ⱼ",
        "∂L/∂z · (Σₖ ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ · ∂z⁽³⁾ₖ/∂h⁽²⁾ⱼ) · ∂h⁽²⁾ⱼ/∂z⁽²⁾ⱼ",
        &[
            ("∂L/∂z⁽²⁾₁", "d · (1 · 1 · 1 + (−1) · 0 · (−1) + 0 · 1 · 1) · 1 = d"),
            ("∂L/∂z⁽²⁾₂", "d · (1 · 1 · 1 + (−1) · 0 · 1 + 0 · 1 · 0) · 0 = 0"),
        ],
    ),
    (
        "∂L/∂w⁽¹⁾ᵢⱼ",
        "∂L/∂z · (Σₖ ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ · ∂z⁽³⁾ₖ/∂h⁽²⁾ⱼ) · ∂h⁽²⁾ⱼ/∂z⁽²⁾ⱼ · ∂z⁽²⁾ⱼ/∂w⁽¹⁾ᵢⱼ",
        &[
            ("∂L/∂w⁽¹⁾₁₁", "d · (1 · 1 · 1 + (−1) · 0 · (−1) + 0 · 1 · 1) · 1 · 1 = d"),
            ("∂L/∂w⁽¹⁾₂₁", "d · (1 · 1 · 1 + (−1) · 0 · (−1) + 0 · 1 · 1) · 1 · (−1) = −d"),
            ("∂L/∂w⁽¹⁾₁₂", "d · (1 · 1 · 1 + (−1) · 0 · 1 + 0 · 1 · 0) · 0 · 1 = 0"),
            ("∂L/∂w⁽¹⁾₂₂", "d · (1 · 1 · 1 + (−1) · 0 · 1 + 0 · 1 · 0) · 0 · (−1) = −0"),
        ],
    ),
    (
        "∂L/∂b⁽¹⁾ⱼ",
        "∂L/∂z · (Σₖ ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ · ∂z⁽³⁾ₖ/∂h⁽²⁾ⱼ) · ∂h⁽²⁾ⱼ/∂z⁽²⁾ⱼ",
        &[
            ("∂L/∂b⁽¹⁾₁", "d · (1 · 1 · 1 + (−1) · 0 · (−1) + 0 · 1 · 1) · 1 = d"),
            ("∂L/∂b⁽¹⁾₂", "d · (1 · 1 · 1 + (−1) · 0 · 1 + 0 · 1 · 0) · 0 = 0"),
        ],
    ),
    (
        "∂L/∂xᵢ",
        "∂L/∂z · (Σⱼ (Σₖ ∂z/∂h⁽³⁾ₖ · ∂h⁽³⁾ₖ/∂z⁽³⁾ₖ · ∂z⁽³⁾ₖ/∂h⁽²⁾ⱼ) · ∂h⁽²⁾ⱼ/∂z⁽²⁾ⱼ · ∂z⁽²⁾ⱼ/∂xᵢ)",
        &[
            (
                "∂L/∂x₁",
                "d · ((1 · 1 · 1 + (−1) · 0 · (−1) + 0 · 1 · 1) · 1 · 1 + (1 · 1 · 1 + (−1) · 0 · 1 + 0 · 1 · 0) · 0 · 0) = d",
            ),
            (
                "∂L/∂x₂",
                "d · ((1 · 1 · 1 + (−1) · 0 · (−1) + 0 · 1 · 1) · 1 · 0 + (1 · 1 · 1 + (−1) · 0 · 1 + 0 · 1 · 0) · 0 · 1) = 0",
            ),
        ],
    ),
];

fn worksheet(args: &[&str]) -> String {
    stdout(&tch_parity().arg("worksheet").args(args).output().unwrap())
}

/// Replaces every sequence of spaces and line breaks by one space.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_blank_of_the_notebook_is_filled_in() {
    let text = worksheet(&[]);
    let blanks = blanks();
    assert_eq!(blanks.len(), 17);
    // Cells of several lines stand side by side in a table, so each line of a value is looked for on its own.
    let rows = text.lines().map(in_one_line).collect::<Vec<_>>();
    for blank in blanks {
        let blank = in_one_line(&blank);
        let (first, others) = blank.split_once("], [").map_or((&*blank, ""), |(a, b)| (a, b));
        let at = rows.iter().position(|row| row.starts_with(first));
        let at = at.unwrap_or_else(|| panic!("{blank} is not in\n{text}"));
        for (line, row) in others.split("], [").zip(&rows[at + 1..]) {
            assert!(row.contains(line), "{line} of {blank} is not in {row}");
        }
        let agrees = rows[at].ends_with("agree");
        assert!(agrees, "{}", rows[at]);
    }
    assert!(text.ends_with("All 29 rows agree with the run.\n\n"), "{text}");
}

#[test]
fn every_gradient_is_derived() {
    let text = worksheet(&[]);
    let y_hat = 1. / (1. + (-1f64).exp());
    let lines = text.lines().map(in_one_line).collect::<Vec<_>>();
    for (gradient, product, elements) in GRADIENTS {
        let first = format!("{gradient} = {product}");
        let at = lines.iter().position(|line| *line == first);
        let at = at.unwrap_or_else(|| panic!("{first} is not in\n{text}"));
        let shown = lines[at + 1..].iter().take_while(|line| !line.is_empty());
        let elements = elements.iter().map(|(of, numbers)| {
            in_one_line(&format!("{of} = {}", numbers.replace('d', &format!("{y_hat:.4}"))))
        });
        // Before the numbers there can be a line in which formulas replace the derivatives.
        let skipped = usize::from(lines[at + 1] != elements.clone().next().unwrap());
        assert_eq!(shown.skip(skipped).cloned().collect::<Vec<_>>(), elements.collect::<Vec<_>>());
    }
}

#[test]
fn the_remarks_say_what_is_notable() {
    let text = in_one_line(&worksheet(&[]));
    for words in [
        "∂L/∂z is ŷ − y: the derivative",
        "Unit 2 of the first hidden layer is dead",
        "Unit 2 of the second hidden layer is dead",
        "relu'(0) = 0, which is why ∂h⁽²⁾ⱼ/∂z⁽²⁾ⱼ asks for > 0 and not for ≥ 0; here no value is exactly 0.",
        "∂L/∂w⁽¹⁾₂₂ is -0. in the run",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let text = in_one_line(&worksheet(&[data("cases/zero.safetensors").to_str().unwrap()]));
    assert!(text.contains("here 30 values are exactly 0, and pass no gradient back"), "{text}");
    let text = in_one_line(&worksheet(&[data("cases/saturated.safetensors").to_str().unwrap()]));
    assert!(
        text.contains("BCELoss divides by no less than 1e-12, and in 6 of the 6 rows"),
        "{text}"
    );
    assert!(text.contains("max{ŷₙ (1 − ŷₙ), 1e-12}"), "{text}");
}

#[test]
fn a_batch_shows_its_rows_and_the_mean() {
    let text = worksheet(&[data("cases/batch-of-16.safetensors").to_str().unwrap()]);
    let lines = text.lines().map(in_one_line).collect::<Vec<_>>();
    for start in [
        "L = −1/16 Σₙ [yₙ log ŷₙ + (1 − yₙ) log (1 − ŷₙ)]",
        "∂L/∂ŷₙ = −1/16 [yₙ/ŷₙ − (1 − yₙ)/(1 − ŷₙ)]",
        "∂L/∂w⁽³⁾ₖ = Σₙ ∂L/∂zₙ · ∂zₙ/∂w⁽³⁾ₖ",
        "∂L/∂z₁₄ = ",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {text}");
    }
    // Of the 16 rows, only the first three and the last three are shown, as by the tensor printer.
    assert!(!lines.iter().any(|line| line.starts_with("∂L/∂z₄ =")), "{text}");
    assert!(text.contains("- BCELoss is the mean over the 16 rows."), "{text}");
}

#[test]
fn random_runs_of_pytorch_agree_with_what_is_derived_by_hand_now() {
    const CASES: usize = 200;
    let (folder, seed) = (scratch("worksheet_random"), seed());
    println!("to repeat: TCH_PARITY_SEED={seed}");
    let out = folder.to_str().unwrap();
    let args = ["random", "--count", &CASES.to_string(), "--seed", &seed, "--out", out];
    pytorch("scripts/reference.py", &args);
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        let replay = Replay::load(&file).unwrap();
        let recorded = Trace::load(&file).unwrap();
        let sheet = Worksheet::new("a random run", replay).unwrap();
        let disagreeing = sheet.disagreeing().collect::<Vec<_>>();
        assert!(disagreeing.is_empty(), "{}: {disagreeing:?}", file.display());
        // Independently of the worksheet's own check, nothing may be off by more than a thousandth.
        let names = recorded.names().filter_map(|name| name.strip_prefix("grad/"));
        let mut gradients = 0;
        for name in names {
            let run = recorded.tensor(&format!("grad/{name}")).unwrap().to_kind(Kind::Double);
            let by_hand = sheet.gradient(name).unwrap();
            assert_eq!(by_hand.size(), run.size());
            let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
            let difference = largest(&(by_hand - &run));
            assert!(
                difference <= 1e-3 * largest(&run) + 1e-7, // for cancellation within a sum
                "{}: {name}: {difference}",
                file.display()
            );
            gradients += 1;
        }
        assert_eq!(gradients, 13);
        cases += 1;
    }
    assert_eq!(cases, CASES);
}

/// Returns a copy of the notebook's recording in which `change` is applied to one tensor.
fn changed(name: &str, change: impl Fn(&Tensor) -> Tensor) -> Replay {
    let stored = Case::load(data("notebook.safetensors")).unwrap();
    let mut trace = Trace::new();
    for (each, _) in stored.trace.iter() {
        let tensor = stored.trace.tensor(each).unwrap();
        trace.push(each, &if each == name { change(&tensor) } else { tensor }).unwrap();
    }
    let run = stored.trace.run::<tch_parity::Run>().unwrap().unwrap();
    trace.describe(&run, &stored.environment).unwrap();
    Replay::new(Case::new(trace).unwrap()).unwrap()
}

#[test]
fn whatever_is_changed_in_a_run_is_seen() {
    let stored = Trace::load(data("notebook.safetensors")).unwrap();
    let names = stored.names().map(str::to_owned).collect::<Vec<_>>();
    // The parameters after the steps are not on the worksheet.
    let on_the_sheet = |name: &&String| !name.starts_with("step/");
    let names = names.iter().filter(on_the_sheet).collect::<Vec<_>>();
    assert_eq!(names.len(), 2 + 6 + 8 + 13);
    for name in names {
        // No formula gives forward/x, but once it is changed, z2 no longer follows from it.
        for by in [1e-5, -1e-5, f64::NAN, f64::INFINITY] {
            let sheet =
                Worksheet::new("a changed run", changed(name, |tensor| tensor + by)).unwrap();
            assert!(!sheet.agrees(), "{name} changed by {by}");
        }
        let same = Worksheet::new("the same run", changed(name, Tensor::copy)).unwrap();
        assert!(same.agrees(), "{:?}", same.disagreeing().collect::<Vec<_>>());
    }
}

#[test]
fn a_disagreement_is_shown_and_the_exit_code_is_1() {
    let file = scratch("worksheet_differs").join("changed.safetensors");
    changed("grad/fc2.weight", |tensor| tensor + 0.25).case.trace.save(&file).unwrap();
    for format in ["text", "markdown", "html", "ipynb"] {
        let output =
            tch_parity().arg("worksheet").arg(&file).args(["--format", format]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{format}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("DIFFER by 2.5e-01 at [0, 0]"), "{format}: {text}");
        assert!(text.contains("2 of 29 rows DIFFER from the run."), "{format}: {text}");
    }
    let output = tch_parity().arg("figure").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("The run DIFFERS"));
}

#[test]
fn the_figure_of_the_readme_is_the_notebooks() {
    let drawn = stdout(&tch_parity().arg("figure").output().unwrap());
    let stored = fs::read_to_string(Path::new(ROOT).join("docs/figure.svg")).unwrap();
    assert_eq!(drawn, stored, "to renew it: scripts/run figure --output docs/figure.svg");
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    assert!(readme.contains("](docs/figure.svg)"));
}

/// Checks the values of all units and weights, and all gradients.
#[test]
fn the_figure_has_every_number_of_the_net() {
    let svg = stdout(&tch_parity().arg("figure").output().unwrap());
    let y_hat = 1. / (1. + (-1f64).exp());
    let loss = format!("{:.4}", -(1. - y_hat).ln());
    let by_y_hat = format!("{:.4}", 1. / (1. - y_hat));
    let d = format!("{y_hat:.4}");
    let minus_d = format!("−{d}");
    // The units are those of x, the two hidden layers, the output and the loss. Each weight has its gradient
    // after it.
    let units = [
        "1", &d, "−1", "0", // x
        "1", &d, "1", &d, "−1", "0", "0", &d, // z2, h2
        "1", &d, "1", &d, "−1", "0", "0", &minus_d, "1", "0", "1", "0", // z3, h3
        "1", &d, &d, &by_y_hat, // z, y_hat
        "0", &loss, // y, L
    ];
    let weights = [
        "1", &d, "0", "0", "0", &minus_d, "1", "0", // fc1, from x1, then from x2
        "1", &d, "−1", "0", "1", "0", "1", "0", "1", "0", "0", "0", // fc2
        "1", &d, "−1", "0", "0", &d, // fc3
    ];
    let texts = svg.split("<text class=\"").skip(1).map(|text| {
        let (class, rest) = text.split_once('"').unwrap();
        let rest = rest.split_once('>').unwrap().1;
        (class, rest.split('<').next().unwrap())
    });
    let of = |class: &'static str| {
        let texts =
            texts.clone().filter(move |(each, _)| each.split(' ').any(|each| each == class));
        texts.map(|(_, text)| text).collect::<Vec<_>>()
    };
    assert_eq!(of("end"), units);
    assert_eq!(of("label"), weights);
    // Two of the units are dead, and so are the weights that get no gradient.
    assert_eq!(svg.matches("class=\"card dead\"").count(), 2);
    assert_eq!(svg.matches(" dead\" stroke-width").count(), 8 + 1); // 8 weights, and the sample in the legend
}
