//! Recorded PyTorch runs replay to the bit, and what PyTorch refuses is refused.

#![cfg(feature = "libtorch")]

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{data, pytorch, scratch, seed, stdout, tch_parity};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tch_parity::{
    Environment, Linear, Loss, Model, Numerics, RecordedOptimizer, Replay, Run, ThreeLayerNet,
    Trace, train,
};

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[test]
fn random_cases_that_pytorch_records_now_replay_bitwise() {
    let folder = scratch("check_random");
    let folder = folder.to_str().unwrap();
    let seed = seed();
    pytorch(
        "scripts/reference.py",
        &["random", "--count", "320", "--seed", &seed, "--out", folder],
    );
    let output = tch_parity().args(["check", "--criterion", "bitwise", folder]).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let first = report.lines().find(|line| line.starts_with("DIFFERS"));
    assert_eq!(first, None, "to repeat: TCH_PARITY_SEED={seed}\n{report}");
    assert_eq!(last_line(&report), "320 cases: 320 same, 0 differ, 0 could not be compared");
    assert_eq!(output.status.code(), Some(0), "to repeat: TCH_PARITY_SEED={seed}");

    // Half of the cases are of SGD, and the others of 13 optimizers. Some have groups, and some a schedule.
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let runs = files.map(|file| Replay::load(file).unwrap().run.optimizer).collect::<Vec<_>>();
    let names = runs.iter().map(|optimizer| optimizer.name.as_str()).collect::<HashSet<_>>();
    assert!(names.len() >= 10, "{names:?}");
    assert!(runs.iter().any(|optimizer| optimizer.groups.len() == 2));
    assert!(runs.iter().any(|optimizer| !optimizer.changes.is_empty()));
}

/// Returns a command that checks the stored cases as another machine would, as far as one machine can imitate
/// another.
fn stored_cases(instructions: &str, threads: &str, args: &[&str]) -> Command {
    let mut command = tch_parity();
    command.arg("check").args(args).arg(data("cases")).arg(data("notebook.safetensors"));
    command.env("MKL_ENABLE_INSTRUCTIONS", instructions).env("OMP_NUM_THREADS", threads);
    command
}

#[test]
fn stored_cases_replay_bitwise_with_every_instruction_set_and_number_of_threads() {
    // As a control, native results should differ. If they do not, since MKL ignores the variable on this CPU, a
    // note says so.
    let native = ["SSE4_2", "AVX2", "AVX512"].map(|instructions| {
        let json = scratch(&format!("check_native_{instructions}")).join("report.json");
        let args = ["--numerics", "native", "--json", json.to_str().unwrap()];
        stored_cases(instructions, "1", &args).output().unwrap();
        fs::read_to_string(json).unwrap()
    });
    if native.iter().all(|report| *report == native[0]) {
        let note = "NOTE: MKL_ENABLE_INSTRUCTIONS changes nothing here, natively either: this CPU stands for itself";
        writeln!(std::io::stderr(), "{note}").unwrap();
    }
    for instructions in ["SSE4_2", "AVX2", "AVX512"] {
        for threads in ["1", "2"] {
            let output =
                stored_cases(instructions, threads, &["--criterion", "bitwise"]).output().unwrap();
            let report = stdout(&output);
            assert_eq!(last_line(&report), "10 cases: 10 same, 0 differ, 0 could not be compared");
        }
    }
}

#[test]
fn without_portable_numerics_the_same_cases_are_close_and_the_reason_is_named() {
    let mut native = stored_cases("AVX2", "2", &["--numerics", "native"]);
    let report = stdout(&native.output().unwrap());
    assert!(report.contains("close required: another environment: "), "{report}");
    assert!(report.contains(r#"numerics "native" here, "portable" there"#), "{report}");
    assert_eq!(last_line(&report), "10 cases: 10 same, 0 differ, 0 could not be compared");
}

#[test]
fn what_pytorch_refuses_is_refused_in_its_words() {
    let folder = scratch("check_refused");
    let said = pytorch("tests/pytorch.py", &["refused", "--out", folder.to_str().unwrap()]);
    assert!(said.lines().count() >= 8, "{said}");
    for line in said.lines() {
        let (name, message) = line.split_once('\t').unwrap();
        let file = folder.join(format!("{name}.safetensors"));
        let output = tch_parity().arg("check").arg(&file).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.contains(message), "{name}: PyTorch says {message}, here\n{stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    }
}

#[test]
fn a_recording_made_here_checks_here() {
    let file = scratch("check_recording").join("run.safetensors");
    let args = ["--lr", "1e-05", "--steps", "3", "--record", file.to_str().unwrap()];
    for (numerics, reason) in
        [("portable", "both use portable numerics"), ("native", "the same environment")]
    {
        stdout(
            &tch_parity()
                .arg("notebook")
                .args(args)
                .args(["--numerics", numerics])
                .output()
                .unwrap(),
        );
        let report = stdout(&tch_parity().arg("check").arg(&file).output().unwrap());
        // The other 8 of the 50 tensors are the inputs and the initial parameters, which are not compared.
        let verdict = format!("(42 tensors bitwise; bitwise required: {reason})");
        assert!(last_line(&report).ends_with(&verdict), "{report}");
    }
}

#[test]
fn recordings_of_the_two_sides_are_the_same_file() {
    let folder = scratch("check_same_file");
    let (ours, theirs) = (folder.join("ours"), folder.join("theirs"));
    for lr in ["1e-05", "0.1", "12345678.5", "0", "1e+16"] {
        let args = ["notebook", "--lr", lr, "--record"];
        stdout(&tch_parity().args(args).arg(&ours).output().unwrap());
        pytorch("scripts/reference.py", &[&args[..], &[theirs.to_str().unwrap()]].concat());
        assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap(), "--lr {lr}");
    }
}

#[test]
fn selftest_sees_every_damage() {
    let by_port = ["notebook.safetensors", "cases/float64.safetensors", "cases/zero.safetensors"];
    let by_program = Path::new(crate::common::ROOT).join("examples/convnet.safetensors");
    for case in by_port.map(data).into_iter().chain([by_program]) {
        let report = stdout(&tch_parity().arg("selftest").arg(case).output().unwrap());
        let counts = last_line(&report).split(' ').collect::<Vec<_>>();
        assert!(counts[0] == counts[2] && counts[0].parse::<u32>().unwrap() > 400, "{report}");
        assert_eq!(report.lines().count(), 12, "{report}"); // a row for each of the ten kinds of damage
    }
}

#[test]
fn cases_that_cannot_be_read_do_not_hide_the_others() {
    let folder = scratch("check_unreadable");
    fs::copy(data("notebook.safetensors"), folder.join("a.safetensors")).unwrap();
    fs::write(folder.join("b.safetensors"), "not a case").unwrap();
    fs::copy(data("cases/dead.safetensors"), folder.join("c.safetensors")).unwrap();
    let output = tch_parity().arg("check").arg(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(last_line(&report), "3 cases: 2 same, 0 differ, 1 could not be compared");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.starts_with("error: cannot read ") && stderr.contains("b.safetensors"),
        "{stderr}"
    );
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
}

#[test]
fn a_nan_for_a_nan_is_no_damage_and_a_nan_for_a_number_is() {
    let ones =
        |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let layer =
        |inputs, outputs| Linear { weight: ones(&[outputs, inputs]), bias: ones(&[outputs]) };
    let model = ThreeLayerNet { fc1: layer(2, 2), fc2: layer(2, 3), fc3: layer(3, 1) };
    let x = Tensor::from_slice2(&[[f32::INFINITY, 1.]]).set_requires_grad(true);
    let optimizer = RecordedOptimizer::sgd(0.1);
    let run = Run { model: Model::ThreeLayerNet, loss: Loss::BCELoss, optimizer, steps: 1 };
    let mut trace = train(&model, &x, &Tensor::from_slice2(&[[1f32]]), &run).unwrap();
    // A gradient of 0 is multiplied by an input of inf.
    let nan = trace.tensor("grad/fc1.weight").unwrap().isnan();
    assert_eq!(Vec::<bool>::try_from(nan.view(-1)).unwrap(), [true, false, true, false]);
    trace.describe(&run, &Environment::current(Numerics::Portable, Device::Cpu).unwrap()).unwrap();
    let file = scratch("check_nan").join("nan.safetensors");
    trace.save(&file).unwrap();
    stdout(&tch_parity().arg("check").arg(&file).output().unwrap());
    let report = stdout(&tch_parity().arg("selftest").arg(&file).output().unwrap());
    let counts = last_line(&report).split(' ').collect::<Vec<_>>();
    assert_eq!(counts[0], counts[2], "{report}");
    let row = report.lines().find(|line| line.starts_with("a nan ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[2..], ["32", "32"], "{report}"); // 4 of 36 are all nan
}

#[test]
fn every_error_replaces_the_reports_of_the_last_run() {
    let folder = scratch("check_stale");
    let (json, junit) = (folder.join("report.json"), folder.join("report.xml"));
    let empty = folder.join("empty");
    fs::create_dir(&empty).unwrap();
    let portable = folder.join("portable.safetensors");
    stdout(&tch_parity().args(["notebook", "--record"]).arg(&portable).output().unwrap());
    let missing = folder.join("missing.safetensors");
    let cases = [
        (vec!["check".into(), missing.clone()], "missing.safetensors", "cannot read"),
        (vec!["check".into(), empty.clone()], "empty", "holds no *.safetensors file"),
        (vec!["compare".into(), missing, portable.clone()], "missing", "cannot read"),
        (vec!["compare".into(), portable.clone(), empty], "empty", "a folder without"),
    ];
    for (args, file, message) in cases {
        fs::write(&json, r#"{"passes": true}"#).unwrap();
        fs::write(&junit, "<testsuites/>").unwrap();
        let mut command = tch_parity();
        command.args(&args).arg("--json").arg(&json).arg("--junit").arg(&junit);
        let output = command.env("GITHUB_ACTIONS", "true").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = &serde_json::from_slice::<Value>(&fs::read(&json).unwrap()).unwrap()["errors"];
        assert!(error[0]["file"].as_str().unwrap().contains(file), "{args:?}: {error}");
        assert!(error[0]["message"].as_str().unwrap().contains(message), "{args:?}: {error}");
        let junit = fs::read_to_string(&junit).unwrap();
        assert!(junit.contains(r#"errors="1""#) && junit.contains(message), "{junit}");
        let files = args.len() - 1 - usize::from(args[0] == Path::new("compare"));
        assert_eq!(error.as_array().unwrap().len(), files, "each is counted: {error}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let annotations = printed.lines().filter(|line| line.starts_with("::error file="));
        assert!(annotations.clone().all(|line| line.contains(message)), "{printed}");
        assert_eq!(annotations.count(), files, "{printed}");
    }
}

/// What is computed for minutes is of no use if its report cannot be written.
#[test]
fn a_report_that_cannot_be_written_is_found_before_anything_is_compared() {
    let folder = scratch("check_unwritable");
    let (case, junit) = (data("cases/zero.safetensors"), folder.join("report.xml"));
    for file in ["no/report.html", "."] {
        for command in
            [vec!["check".into(), case.clone()], vec!["compare".into(), case.clone(), case.clone()]]
        {
            fs::write(&junit, "<testsuites/>").unwrap();
            let mut command = {
                let mut started = tch_parity();
                started.args(command);
                started
            };
            command.arg("--html").arg(folder.join(file)).arg("--junit").arg(&junit);
            let output = command.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
            let says = stderr.starts_with("error: cannot write ");
            assert!(
                says && stderr
                    .ends_with(": nothing was compared; name a file that can be written\n"),
                "{stderr}"
            );
            assert!(output.stdout.is_empty(), "{output:?}");
            // No report of an earlier run is left.
            assert!(fs::read_to_string(&junit).unwrap().contains("nothing was compared"));
        }
    }
}

/// Records the notebook with these numerics and this number of threads.
fn recorded(file: &Path, numerics: &str, threads: &str) {
    let mut command = tch_parity();
    command.args(["notebook", "--numerics", numerics, "--record"]).arg(file);
    stdout(&command.env("OMP_NUM_THREADS", threads).output().unwrap());
}

#[test]
fn cases_of_different_numerics_are_each_computed_as_they_were_recorded() {
    let folder = scratch("check_mixed");
    let numerics = ["native", "portable", "native", "portable"];
    for (name, numerics) in ["a", "b", "c", "e"].iter().zip(numerics) {
        recorded(&folder.join(format!("{name}.safetensors")), numerics, "2");
    }
    fs::write(folder.join("d.safetensors"), "no case").unwrap();
    let json = folder.join("report.json");
    let mut command = tch_parity();
    command.arg("check").arg(&folder).arg("--json").arg(&json).args(["--criterion", "bitwise"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2)); // d could not be compared
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(last_line(&report), "5 cases: 4 same, 0 differ, 1 could not be compared");
    let names = report.lines().filter_map(|line| line.strip_prefix("same: "));
    let names = names.map(|line| line.split(".safetensors").next().unwrap());
    let names = names.map(|name| name.rsplit('/').next().unwrap());
    assert_eq!(names.collect::<String>(), "abce", "in order");
    let json: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let reports = json["reports"].as_array().unwrap();
    assert_eq!((reports.len(), json["errors"].as_array().unwrap().len()), (4, 1));
    // The reports are those of a single process.
    let alone = folder.join("alone.json");
    let mut command = tch_parity();
    command.arg("check").arg(folder.join("a.safetensors")).arg("--json").arg(&alone);
    stdout(&command.args(["--criterion", "bitwise"]).output().unwrap());
    let alone: Value = serde_json::from_slice(&fs::read(alone).unwrap()).unwrap();
    assert_eq!(reports[0], alone["reports"][0]);
}

#[test]
fn a_native_replay_uses_the_recorded_number_of_threads() {
    let file = scratch("check_threads").join("run.safetensors");
    for threads in ["1", "2"] {
        if threads.parse::<usize>().unwrap() > std::thread::available_parallelism().unwrap().get() {
            continue; // the machine does not have that many
        }
        recorded(&file, "native", threads);
        let report = stdout(&tch_parity().arg("check").arg(&file).output().unwrap());
        assert!(report.ends_with("bitwise required: the same environment)\n"), "{report}");
    }
    // The report names a number of threads that the machine does not have.
    let mut trace = Trace::load(&file).unwrap();
    let mut environment = trace.environment::<Environment>().unwrap().unwrap();
    environment.threads = 4096;
    trace.describe(&trace.run::<Value>().unwrap(), &environment).unwrap();
    trace.save(&file).unwrap();
    let report = stdout(&tch_parity().arg("check").arg(&file).output().unwrap());
    assert!(report.contains("4096 there"), "{report}");
}

/// Measures the peak memory of a command, in KiB.
fn peak(command: &str, args: &[&Path]) -> f64 {
    let script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, \
                  stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    // A process that had torch would count as the command's own memory.
    let mut python = Command::new(crate::common::interpreter());
    python.args(["-c", script, env!("CARGO_BIN_EXE_tch-parity"), command]).args(args);
    stdout(&python.output().unwrap()).trim().parse().unwrap()
}

#[test]
fn many_cases_take_no_more_memory_than_a_few() {
    let folder = scratch("check_memory");
    let [few, many] = [("few", 40), ("many", 1200)].map(|(name, count)| {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        for i in 0..count {
            let file = folder.join(format!("{i}.safetensors"));
            fs::copy(data("cases/float64.safetensors"), file).unwrap();
        }
        let reports = [folder.join("report.json"), folder.join("report.xml")];
        let (json, junit) = (Path::new("--json"), Path::new("--junit"));
        peak("check", &[&folder, json, &reports[0], junit, &reports[1]])
    });
    // There are 1,160 cases of 90 KB, with reports of 80 KB each.
    assert!(many - few < 24. * 1024., "{few} and {many} KiB");
}

/// A batch without rows, of a number of columns that nobody can count to; and as many tensors as 300 steps have.
#[test]
fn the_control_takes_no_longer_than_the_tensors_are_large() {
    let folder = scratch("check_control");
    let parameter = |size: [i64; 2]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let layer = |inputs, outputs| Linear {
        weight: parameter([outputs, inputs]).set_requires_grad(true),
        bias: parameter([1, outputs]).view(-1).set_requires_grad(true),
    };
    let model = ThreeLayerNet { fc1: layer(1 << 62, 0), fc2: layer(0, 1), fc3: layer(1, 1) };
    let x = parameter([0, 1 << 62]).set_requires_grad(true);
    let optimizer = RecordedOptimizer::sgd(0.1);
    let run = Run { model: Model::ThreeLayerNet, loss: Loss::BCELoss, optimizer, steps: 1 };
    let mut trace = train(&model, &x, &parameter([0, 1]), &run).unwrap();
    trace.describe(&run, &Environment::current(Numerics::Portable, Device::Cpu).unwrap()).unwrap();
    let endless = folder.join("endless.safetensors");
    trace.save(&endless).unwrap();
    let long = folder.join("long.safetensors");
    let args = ["notebook", "--steps", "300", "--record"];
    stdout(&tch_parity().args(args).arg(&long).output().unwrap());
    for (file, least) in [(endless, 100), (long, 18_000)] {
        let report = stdout(&tch_parity().arg("selftest").arg(file).output().unwrap());
        let counts = last_line(&report).split(' ').collect::<Vec<_>>();
        assert!(counts[0] == counts[2] && counts[0].parse::<u32>().unwrap() > least, "{report}");
    }
}

/// The names of the cases that a check prints, without their folder.
fn checked(arguments: &[&str]) -> (Vec<String>, Output) {
    let cases = data("cases");
    let output = tch_parity().arg("check").arg(&cases).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let start = format!("same: {}/", cases.display());
    let names = text.lines().filter_map(|line| line.strip_prefix(&start)?.split(' ').next());
    (names.map(str::to_owned).collect(), output)
}

#[test]
fn partitions_share_the_cases() {
    let (all, _) = checked(&[]);
    let mut shared = Vec::new();
    for part in ["1/2", "2/2"] {
        let (names, output) = checked(&["--partition", part, "--jobs", "1"]);
        assert!(output.status.success(), "{output:?}");
        shared.push(names);
    }
    assert_eq!((shared[0].len(), shared[1].len()), (5, 4));
    let mut together = shared.concat();
    together.sort();
    assert_eq!(together, all);
    for (part, says) in [
        ("3/2", "M has to be from 1 to N"),
        ("0/2", "M has to be from 1 to N"),
        ("1", "it is not of the form M/N"),
        ("-1/2", "it is not of the form M/N, such as 2/8"),
        ("10/10", "--partition 10/10 has none of the cases, of which there are 9"),
    ] {
        let (_, output) = checked(&["--partition", part]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.contains(says)), (Some(2), true), "{stderr}");
    }
    for jobs in ["0", "-1", "x"] {
        let (_, output) = checked(&["--jobs", jobs]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let says = format!(
            "error: invalid value '{jobs}' for '--jobs <N>': it is not a number of cases from 1 on"
        );
        assert_eq!((output.status.code(), stderr.trim_end()), (Some(2), &*says), "{output:?}");
    }
}

#[test]
fn the_first_case_that_does_not_pass_can_end_the_check() {
    let folder = scratch("check_fail_fast");
    fs::write(folder.join("0.safetensors"), "damaged").unwrap();
    for at in 1..200 {
        let case = folder.join(format!("{at}.safetensors"));
        std::os::unix::fs::symlink(data("cases/zero.safetensors"), case).unwrap();
    }
    for jobs in ["1", "2"] {
        let mut command = tch_parity();
        command.arg("check").arg(&folder).args(["--fail-fast", "--jobs", jobs]);
        let [json, junit, page] = ["r.json", "r.xml", "r.html"].map(|name| folder.join(name));
        command.arg("--json").arg(&json).arg("--junit").arg(&junit).arg("--html").arg(&page);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let same = text.matches("same: ").count();
        let says = format!(
            "stopped at a case that does not pass: {} of 200 cases were not checked",
            199 - same
        );
        assert!(text.contains(&says), "{text}");
        // Every report says so, and none counts it as a case.
        let [json, junit, page] = [json, junit, page].map(|file| fs::read_to_string(file).unwrap());
        let json = serde_json::from_str::<Value>(&json).unwrap();
        let stopped = &json["stopped"];
        assert_eq!(
            (&stopped["not_checked"], &stopped["cases"]),
            (&(199 - same).into(), &200.into())
        );
        assert_eq!(json["errors"].as_array().map(Vec::len), Some(1));
        assert!(junit.contains(&says) && page.contains(&says));
        assert!(text.contains(", 1 could not be compared\n"), "{text}");
        assert!(text.matches("same: ").count() < 100, "{text}");
    }
}

/// The child says that it has begun when it writes the first report.
#[test]
fn ctrl_c_ends_a_check_with_a_report_that_says_so() {
    let folder = scratch("check_interrupted");
    for at in 0..4000 {
        let case = folder.join(format!("{at}.safetensors"));
        std::os::unix::fs::symlink(data("cases/zero.safetensors"), case).unwrap();
    }
    let mut command = tch_parity();
    command.arg("check").arg(&folder).args(["--json", "-", "--jobs", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut json = vec![0];
    out.read_exact(&mut json).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    out.read_to_end(&mut json).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("error: stopped by Ctrl-C: "), "{stderr}");
    let json = serde_json::from_slice::<Value>(&json).unwrap();
    let reports = json["reports"].as_array().unwrap().len();
    assert!((1..4000).contains(&reports) && json["passes"] == false, "{reports}");
    // It is no case, and not counted as one.
    assert_eq!(json["errors"], Value::Array(Vec::new()));
    let stopped = serde_json::json!({
        "reason": "stopped by Ctrl-C", "not_checked": 4000 - reports, "cases": 4000
    });
    assert_eq!(json["stopped"], stopped);
    let counts = format!("{reports} cases: {reports} same, 0 differ, 0 could not be compared\n");
    let counts = if reports == 1 { counts.replace("1 cases", "1 case") } else { counts };
    assert!(stderr.contains(&counts), "{stderr}");
}

/// The child cannot go on writing its report, since nobody reads it.
#[test]
fn a_second_ctrl_c_ends_the_check_while_it_reports() {
    let folder = scratch("check_interrupted_twice");
    let cases = folder.join("cases");
    fs::create_dir(&cases).unwrap();
    for at in 0..200 {
        let case = cases.join(format!("{at}.safetensors"));
        std::os::unix::fs::symlink(data("cases/zero.safetensors"), case).unwrap();
    }
    let mut command = tch_parity();
    command.arg("check").arg(&cases).args(["--json", "-", "--jobs", "1", "--junit"]);
    command.arg(folder.join("junit.xml"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    // Two that come at once count as one.
    let mut sent = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success() && sent < 100, "{sent}");
        sent += 1;
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(status.signal(), Some(2), "{status:?}");
    assert!(sent >= 2, "the first one ended it");
    // Nothing is left half-written.
    let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["cases"]);
}

/// Writes the example of a Llama with one bit of each of these tensors flipped.
fn damaged_llama(file: &Path, names: &[&str]) {
    let mut bytes =
        fs::read(Path::new(crate::common::ROOT).join("examples/llama.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let read = serde_json::from_slice::<Value>(&bytes[8..header]).unwrap();
    for name in names {
        let offset = read[*name]["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[header + offset] ^= 1;
    }
    fs::write(file, bytes).unwrap();
}

/// Checks that the page of a difference says which operator computes what differs, and from which line of Python. The
/// line is the user's where PyTorch's own is further in.
#[test]
fn the_page_names_the_operator_and_the_line_of_python() {
    let folder = scratch("page_of_check");
    let (file, page) = (folder.join("case.safetensors"), folder.join("page.html"));
    let query = "forward/layers.0.self_attn.q_proj";
    let names =
        ["forward/layers.0", query, "grad/layers.0", "grad/layers.0.self_attn.q_proj.weight"];
    damaged_llama(&file, &names);
    let linear = "aten::linear in layers.0.self_attn.q_proj (llama.py:";
    let wanted = [
        ("aten::add.Tensor in layers.0 (llama.py:", ": return x + self.mlp("),
        (linear, ": q = self.q_proj(x)"),
        ("the backward of aten::", " in layers.1"),
        (&*format!("the backward of {linear}"), ": q = self.q_proj(x)"),
    ];
    let example = Path::new(crate::common::ROOT).join("examples/llama.safetensors");
    // Two recordings have the same programs, and neither is run.
    for command in [vec!["check".into(), file.clone()], vec!["compare".into(), file, example]] {
        let output = tch_parity().args(&command).arg("--html").arg(&page).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let page = fs::read_to_string(&page).unwrap();
        for (name, (operator, line)) in names.iter().zip(wanted) {
            let (_, computed) = page.split_once(&format!("{name}</a><br>")).unwrap();
            let (computed, _) = computed.split_once("</span>").unwrap();
            let says = computed.contains(&format!("computed by {operator}"));
            assert!(says && computed.contains(line), "{name}: {computed}");
        }
    }
}

/// `check` accepts no difference, and so has no option to advise.
#[test]
fn the_advice_is_an_option_that_the_command_has() {
    let folder = scratch("advice_of_check");
    let file = folder.join("case.safetensors");
    damaged_llama(&file, &["forward/layers.0"]);
    let junit = folder.join("r.xml");
    let output = tch_parity().arg("check").arg(&file).arg("--junit").arg(&junit).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = text + &fs::read_to_string(junit).unwrap();
    assert_eq!(all.matches("It would pass with an absolute tolerance of ").count(), 2, "{all}");
    assert!(!all.contains("--tolerance"), "{all}");
}
