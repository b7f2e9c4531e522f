//! Recorded PyTorch runs replay to the bit, and what PyTorch refuses is refused.

mod common;

use std::fs;
use std::process::Command;

use common::{data, pytorch, scratch, seed, stdout, tch_parity};

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
}

/// The stored cases on another machine, as far as one machine can be another.
fn stored_cases(instructions: &str, threads: &str, args: &[&str]) -> Command {
    let mut command = tch_parity();
    command.arg("check").args(args).arg(data("cases")).arg(data("notebook.safetensors"));
    command.env("MKL_ENABLE_INSTRUCTIONS", instructions).env("OMP_NUM_THREADS", threads);
    command
}

#[test]
fn stored_cases_replay_bitwise_with_every_instruction_set_and_number_of_threads() {
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
        let verdict = format!("(50 tensors bitwise; bitwise required: {reason})");
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
    for case in ["notebook.safetensors", "cases/float64.safetensors", "cases/zero.safetensors"] {
        let report = stdout(&tch_parity().arg("selftest").arg(data(case)).output().unwrap());
        let counts = last_line(&report).split(' ').collect::<Vec<_>>();
        assert!(counts[0] == counts[2] && counts[0].parse::<u32>().unwrap() > 400, "{report}");
        assert_eq!(report.lines().count(), 12, "{report}"); // ten ways, each with its row
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
