//! The page and the figure in a browser, which is headless Chromium. Without Chromium, the tests are skipped.

#![cfg(feature = "libtorch")]

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{data, pytorch, scratch, stdout, tch_parity};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tch_parity::Trace;

/// A script that measures what is drawn, and leaves the measurements in the page as JSON.
const MEASURE: &str = r#"<pre id="measured"></pre><script>
const box = node => { const r = node.getBoundingClientRect();
  return { text: node.textContent, left: r.left, top: r.top, right: r.right, bottom: r.bottom }; };
const all = selector => [...document.querySelectorAll(selector)];
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
const texts = all("svg text").map(box), cards = all("svg rect.card").map(box);
const svg = document.querySelector("svg") && box(document.querySelector("svg"));
const outside = (a, b) => a.left < b.left || a.right > b.right || a.top < b.top || a.bottom > b.bottom;
const overlaps = [];
texts.forEach((a, i) => texts.slice(i + 1).forEach(b => overlap(a, b) && overlaps.push(a.text + " / " + b.text)));
cards.forEach((a, i) => cards.slice(i + 1).forEach(b => overlap(a, b) && overlaps.push("two units")));
all("svg text.label").map(box).forEach(a => cards.forEach(b => overlap(a, b) && overlaps.push(a.text + " / unit")));
const paper = document.querySelector("svg .paper");
document.getElementById("measured").textContent = JSON.stringify({
  width: svg && svg.right - svg.left, height: svg && svg.bottom - svg.top,
  texts: texts.length, overlaps, outside: texts.filter(a => outside(a, svg)).map(a => a.text),
  smallest: Math.min(...all("svg text").map(t => parseFloat(getComputedStyle(t).fontSize))),
  paper: paper && getComputedStyle(paper).fill, page: getComputedStyle(document.documentElement).colorScheme,
  math: all("math").length, empty: all("math").filter(m => { const b = box(m);
    return !(b.right - b.left > 0 && b.bottom - b.top > 0); }).map(m => m.outerHTML),
  wrong: all("merror, parsererror").length,
});
</script>"#;

fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file());
    if found.is_none() {
        let note = "no Chromium on the PATH, so no page is opened: install the package chromium";
        // In CI, a test that checks nothing is a failure.
        assert!(env::var_os("CI").is_none(), "{note}");
        // Elsewhere it says so, past the capture of a test's output.
        std::io::stderr().write_all(format!("NOTE: {note}\n").as_bytes()).unwrap();
    }
    found
}

/// Opens a page in Chromium, and returns the resulting page and Chromium's complaints.
///
/// Chromium itself sometimes dies of a signal when it has barely started. Such a death says nothing about the page, so
/// the page is opened again, in a new profile. A page that kills it every time is a failure.
fn opened(chromium: &Path, page: &Path, dark: bool) -> (String, Vec<String>) {
    let mut runs = (0..4).map(|attempt| run(chromium, page, dark, &format!("profile{attempt}")));
    let output = runs.find(|output| output.status.code().is_some());
    let output = output.expect("Chromium died of a signal four times in a row");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints = stderr.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned);
    let complaints = complaints.collect();
    (stdout(&output), complaints)
}

fn run(chromium: &Path, page: &Path, dark: bool, profile: &str) -> Output {
    let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
    Command::new(chromium)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=940,900"])
        // A container may have little shared memory, and no network for what a browser does by itself.
        .args(["--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"])
        .args(["--disable-component-update", "--no-first-run"])
        .args(["--enable-logging=stderr", "--dump-dom", &scheme])
        .arg(format!("--user-data-dir={}", page.with_extension(profile).display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap()
}

fn measured(chromium: &Path, page: &Path, dark: bool) -> Value {
    let html = fs::read_to_string(page).unwrap();
    let copy = page.with_file_name(format!("measured-{dark}.html"));
    fs::write(&copy, html + MEASURE).unwrap();
    let (dom, complaints) = opened(chromium, &copy, dark);
    assert_eq!(complaints, Vec::<String>::new());
    let json = dom.split("<pre id=\"measured\">").nth(1).unwrap().split("</pre>").next().unwrap();
    let json = json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&json).unwrap_or_else(|err| panic!("{err}: {json}"))
}

fn assert_well_drawn(found: &Value, name: &str) {
    for nothing in ["overlaps", "outside", "empty"] {
        assert_eq!(found[nothing], Value::Array(Vec::new()), "{name}: {nothing}");
    }
    assert_eq!(found["wrong"], 0, "{name}");
    assert!(
        found["texts"].as_f64() > Some(5.) && found["height"].as_f64() > Some(100.),
        "{name}: {found}"
    );
    assert!(
        found["width"].as_f64() <= Some(900.) && found["width"].as_f64() > Some(850.),
        "{name}: {found}"
    );
}

#[test]
fn the_page_opens_without_a_complaint_and_shows_everything() {
    let Some(chromium) = chromium() else { return };
    let page = scratch("browser_page").join("worksheet.html");
    let args = ["worksheet", "--format", "html", "--output", page.to_str().unwrap()];
    stdout(&tch_parity().args(args).output().unwrap());
    let (_, complaints) = opened(&chromium, &page, false);
    assert_eq!(complaints, Vec::<String>::new());

    let [light, dark] = [false, true].map(|dark| measured(&chromium, &page, dark));
    for found in [&light, &dark] {
        assert_well_drawn(found, "the page");
        assert!(found["math"].as_f64() > Some(100.), "{found}");
        assert!(found["smallest"].as_f64() >= Some(8.), "{found}");
    }
    assert_ne!(light["paper"], dark["paper"]);

    // The page loads nothing from elsewhere, and runs no script.
    let html = fs::read_to_string(&page).unwrap();
    let links = html.matches("http").count();
    assert_eq!(links, html.matches("http://www.w3.org/2000/svg").count());
    assert!(!html.contains("<script"));
}

/// A script that leaves in the page of how many elements it is, and whether anything is wider than it.
const LOADED: &str = r#"<pre id="measured"></pre><script>
addEventListener("load", () => setTimeout(() => {
  document.body.getBoundingClientRect();
  const cell = document.querySelector("i.d"), button = document.querySelector("th button");
  const first = () => document.querySelector("table.sort").rows[1].cells[1].textContent;
  const before = first();
  button.click();
  document.getElementById("measured").textContent = JSON.stringify({
    elements: document.getElementsByTagName("*").length, wide: document.documentElement.scrollWidth > innerWidth,
    cell: getComputedStyle(cell).backgroundColor, page: getComputedStyle(document.body).backgroundColor,
    top: document.querySelector("footer").getBoundingClientRect().top < 100, before, after: first(),
    cells: [...new Set([...document.querySelectorAll(".row > b + i")].map(first =>
      first.getBoundingClientRect().left).filter(left => left > 0))],
    plots: document.querySelectorAll("svg[role=img]").length });
}));
</script>"#;

#[test]
fn a_report_of_five_thousand_tensors_is_small_and_opens() {
    let folder = scratch("browser_report");
    let file = |name: &str, by: f32| {
        let mut trace = Trace::new();
        let mut push = |name: String, of: f32| {
            let bytes = [1f32, of, 0.5, 2. + by * of].map(f32::to_le_bytes).concat();
            let view = TensorView::new(Dtype::F32, vec![2, 2], &bytes).unwrap();
            trace.push_view(name, &view).unwrap();
        };
        for step in 1..=10 {
            let at = if step == 1 { String::new() } else { format!("step/{step}/") };
            for layer in 0..125 {
                for part in ["forward/", "grad/"] {
                    let of = if layer == 1 { "mlp.inner" } else { "attention" };
                    let module = format!("{at}{part}encoder.layers.{layer}.{of}.<b>");
                    push(module, (step * layer) as f32 + 1.);
                }
                let deep = if layer == 1 { ".mlp.inner.proj" } else { "" };
                for name in ["weight", "bias"] {
                    let tensor = format!("encoder.layers.{layer}{deep}.{name}");
                    push(format!("step/{step}/{tensor}"), layer as f32);
                }
            }
        }
        let path = folder.join(name);
        trace.save(&path).unwrap();
        path
    };
    let (actual, expected) = (file("a.safetensors", 1e-3), file("e.safetensors", 0.));
    let page = folder.join("report.html");
    let mut command = tch_parity();
    command.arg("compare").args([&actual, &expected]).arg("--html").arg(&page);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.len() < 5_000_000, "{} bytes", html.len());
    assert!(!html.contains("http") && !html.contains("<b>.") && !html.contains(".<b>"));
    assert!(html.contains("5000 tensors differ"));

    let Some(chromium) = chromium() else { return };
    let copy = folder.join("measured.html");
    fs::write(&copy, html + LOADED).unwrap();
    let open = |dark| {
        let (dom, complaints) = opened(&chromium, &copy, dark);
        assert_eq!(complaints, Vec::<String>::new());
        let json =
            dom.split("<pre id=\"measured\">").nth(1).unwrap().split("</pre>").next().unwrap();
        let found = json.replace("&lt;", "<").replace("&gt;", ">");
        let found = serde_json::from_str::<Value>(&found).unwrap();
        assert_eq!((&found["wide"], &found["top"]), (&false.into(), &true.into()), "{found}");
        // The cells of a column stand below each other, however deep their modules are.
        assert_eq!(found["cells"].as_array().map(Vec::len), Some(1), "{found}");
        assert!(found["before"] != found["after"] && found["plots"].as_u64() > Some(1), "{found}");
        found
    };
    let [light, dark] = [false, true].map(open);
    assert_ne!(light["page"], dark["page"]);
    assert_ne!(light["cell"], dark["cell"]);
    // A browser's time to open a page goes by its elements, and unlike the time they are the same on every machine.
    assert!(light["elements"].as_u64() < Some(30_000), "{light}");
}

/// Checks nets of other sizes, including the largest that are drawn.
#[test]
fn no_label_of_a_figure_lies_over_another() {
    let Some(chromium) = chromium() else { return };
    let folder = scratch("browser_figures");
    let drawn = pytorch("tests/pytorch.py", &["nets", "--out", folder.to_str().unwrap()]);
    let mut files = drawn.lines().map(|name| folder.join(name)).collect::<Vec<_>>();
    assert_eq!(files.len(), 8);
    files.push(data("notebook.safetensors"));
    files.extend(
        ["dead", "saturated", "subnormal"].map(|name| data(&format!("cases/{name}.safetensors"))),
    );
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let svg = stdout(&tch_parity().arg("figure").arg(&file).output().unwrap());
        let page = folder.join(format!("{name}.html"));
        fs::write(&page, format!("<!DOCTYPE html><meta charset=\"utf-8\">{svg}")).unwrap();
        assert_well_drawn(&measured(&chromium, &page, false), &name);
    }
}

/// Checks, as a control, that the measurement above detects an overlap.
#[test]
fn labels_that_lie_over_each_other_are_seen() {
    let Some(chromium) = chromium() else { return };
    let page = scratch("browser_control").join("figure.html");
    let svg = stdout(&tch_parity().arg("figure").output().unwrap());
    let moved = svg.replace("</style>", ".net text { font-size: 20px; }</style>");
    let formula = "<math><mi></mi></math>";
    fs::write(&page, format!("<!DOCTYPE html><meta charset=\"utf-8\">{moved}{formula}")).unwrap();
    let found = measured(&chromium, &page, false);
    assert!(!found["overlaps"].as_array().unwrap().is_empty(), "{found}");
    assert!(!found["empty"].as_array().unwrap().is_empty(), "{found}");
    fs::write(&page, format!("<!DOCTYPE html>{svg}<script>console.error('seen')</script>"))
        .unwrap();
    let (_, complaints) = opened(&chromium, &page, false);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
}
