//! What surrounds the program: streams that are closed, files that may not be written, signals, limits, variables,
//! and other processes in the same folder.

#![cfg(feature = "libtorch")]

use std::env;
use std::fs::{self, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{assert_same, data, scratch, stdout, tch_parity};
use safetensors::tensor::{Dtype, TensorView};
use tch_parity::Trace;

/// Runs the program by a shell, which can close streams and set limits; `$T` is the program.
fn shell(script: &str) -> Output {
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).env("T", env!("CARGO_BIN_EXE_tch-parity"));
    shell.env("CASE", data("cases/zero.safetensors")).output().unwrap()
}

/// Checks that the program ends with exit code 2 and one line that says why.
fn assert_one_line(output: &Output, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(says), "{stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
}

#[test]
fn a_stdout_that_takes_nothing_is_an_error() {
    for command in ["--help", "--version", "notebook", "show $CASE", "check $CASE", "worksheet"] {
        assert_one_line(&shell(&format!("$T {command} >/dev/full")), "No space left on device");
        assert_one_line(&shell(&format!("$T {command} >&-")), "stdout is closed");
        assert_one_line(&shell(&format!("$T {command} 1</dev/null")), "open for reading alone");
        assert_eq!(shell(&format!("$T {command} 1<>/dev/null")).status.code(), Some(0));
    }
}

#[test]
fn two_outputs_do_not_go_to_one_file_that_is_not_there_yet() {
    let folder = scratch("manners_twice");
    for other in ["./r", "../manners_twice/r"] {
        let script = format!("cd {} && $T check $CASE --json r --junit {other}", folder.display());
        assert_one_line(&shell(&script), "two outputs go there");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_file_that_stdout_writes_to_is_not_replaced() {
    let folder = scratch("manners_stdout");
    let script = |json: &str| {
        shell(&format!("cd {} && $T check $CASE --json {json} >out", folder.display()))
    };
    assert_one_line(&script("out"), "stdout or stderr writes to that file");
    assert_one_line(&script("/dev/stdout"), "stdout or stderr writes to that file");
}

#[test]
fn a_file_in_memory_is_a_file() {
    let file = format!("/dev/shm/tch-parity-{}.json", std::process::id());
    if !Path::new("/dev/shm").is_dir() {
        return; // not of this system
    }
    for _ in 0..2 {
        let output = shell(&format!("$T check $CASE --json {file}"));
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::remove_file(file).unwrap();
}

#[test]
fn a_replaced_file_keeps_its_mode_and_a_read_only_one_is_refused() {
    let file = scratch("manners_mode").join("report.json");
    for mode in [0o600, 0o640, 0o664] {
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        stdout(&shell(&format!("$T check $CASE --json {}", file.display())));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, mode);
        assert_ne!(fs::read_to_string(&file).unwrap(), "old");
    }
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    assert_one_line(&shell(&format!("$T check $CASE --json {}", file.display())), "is read-only");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
}

#[test]
fn a_file_that_grows_too_large_is_an_error_and_leaves_nothing() {
    let folder = scratch("manners_limit");
    let script = format!(
        "ulimit -f 4; cd {} && $T notebook --steps 200 --record run >/dev/null",
        folder.display()
    );
    assert_one_line(&shell(&script), "cannot write run: File too large");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_signal_removes_what_is_half_written() {
    let folder = scratch("manners_signal");
    let names = || {
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    // The first INT asks a check for its end: tests/command/check.rs.
    for signal in ["TERM", "HUP", "ALRM", "USR1", "USR2"] {
        // The report's file is begun before the first case is replayed, and there are many of them.
        let cases = vec![data("cases/batch-of-16.safetensors"); 20_000];
        let mut child = tch_parity();
        child.arg("check").args(&cases).arg("--json").arg(folder.join("report.json"));
        let mut child = child.stdout(Stdio::null()).spawn().unwrap();
        while names().is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), None, "{signal}: ended by the signal");
        assert_eq!(names(), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn without_threads_one_does_the_work() {
    let large = scratch("manners_threads").join("large");
    let mut trace = Trace::new();
    let bytes = vec![0; 4 << 21];
    trace.push_view("t", &TensorView::new(Dtype::F32, vec![1 << 21], &bytes).unwrap()).unwrap();
    trace.save(&large).unwrap();
    // No thread can have so large a stack.
    let folder = data("cases");
    let script = format!(
        "export RUST_MIN_STACK=999999999999999; $T check {} | tail -n 1; $T compare {large} {large}",
        folder.display(),
        large = large.display(),
    );
    let printed = stdout(&shell(&script));
    assert!(printed.starts_with("9 cases: 9 same, 0 differ"), "{printed}");
    assert!(printed.contains("\nsame: "), "{printed}");
    // On a terminal as well, where another thread would draw the progress.
    let mut terminal = Command::new("python3");
    terminal.args(["-c", "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"]);
    terminal.arg(env!("CARGO_BIN_EXE_tch-parity")).arg("check").arg(&folder);
    let output = terminal.env("RUST_MIN_STACK", "999999999999999").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("9 cases: 9 same, 0 differ"), "{shown}");
}

#[test]
fn what_libraries_are_told_to_print_is_not_printed_to_stdout() {
    let expected = fs::read_to_string(data("notebook.txt")).unwrap();
    let printed = stdout(&shell("MKL_VERBOSE=1 ONEDNN_VERBOSE=1 DNNL_VERBOSE=1 $T notebook"));
    assert!(printed == expected, "{printed}");
}

/// A trace that tells who saved it.
fn signed(process: &str, thread: usize, save: usize) -> Trace {
    let mut trace = Trace::new();
    let bytes = format!("{process} {thread} {save} ").repeat(2000).into_bytes();
    let view = TensorView::new(Dtype::U8, vec![bytes.len()], &bytes).unwrap();
    trace.push_view("signature", &view).unwrap();
    trace
}

/// In each of two processes four threads save 50 times, to files of their own and to one of all.
#[test]
fn files_that_are_saved_at_the_same_time_are_all_whole() {
    const PROCESS: &str = "TCH_PARITY_SAVES";
    const FOLDER: &str = "TCH_PARITY_SAVES_IN";
    if let (Ok(process), Ok(folder)) = (env::var(PROCESS), env::var(FOLDER)) {
        let folder = Path::new(&folder);
        thread::scope(|scope| {
            for thread in 0..4 {
                let process = &process;
                scope.spawn(move || {
                    for save in 0..50 {
                        let trace = signed(process, thread, save);
                        let own = folder.join(format!("{process}-{thread}-{save}"));
                        trace.save(&own).unwrap();
                        assert_same(&Trace::load(&own).unwrap(), &trace);
                        trace.save(folder.join("shared")).unwrap();
                        Trace::load(folder.join("shared")).unwrap(); // whoever saved it
                    }
                });
            }
        });
        return;
    }
    let folder = scratch("manners_saves");
    let children = ["a", "b"].map(|process| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "manners::files_that_are_saved_at_the_same_time_are_all_whole"]);
        child.env(PROCESS, process).env(FOLDER, &folder).spawn().unwrap()
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2 * 4 * 50 + 1);
    for (process, thread) in
        ["a", "b"].iter().flat_map(|process| [0, 1, 2, 3].map(|t| (process, t)))
    {
        for save in 0..50 {
            let own = Trace::load(folder.join(format!("{process}-{thread}-{save}"))).unwrap();
            assert_same(&own, &signed(process, thread, save));
        }
    }
}

#[test]
fn what_is_no_file_or_claims_too_much_does_not_hold_up_the_others() {
    let folder = scratch("manners_fifo");
    fs::copy(data("cases/zero.safetensors"), folder.join("a.safetensors")).unwrap();
    let fifo = folder.join("b.safetensors");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // A header of 3 GiB, by its own account, in a file of as many bytes.
    let large = fs::File::create(folder.join("c.safetensors")).unwrap();
    (&large).write_all(&(3u64 << 30).to_le_bytes()).unwrap();
    large.set_len(3 << 30).unwrap();
    let script = format!("ulimit -v 5000000; timeout 60 $T check {}", folder.display());
    let output = shell(&script);
    let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let last = "3 cases: 1 same, 0 differ, 2 could not be compared\n";
    assert!(String::from_utf8_lossy(&stdout).ends_with(last), "{stderr}");
    assert!(stderr.contains("b.safetensors: not a regular file"), "{stderr}");
    assert!(stderr.contains("header too large: 3221225472 bytes"), "{stderr}");
}

/// The files are sparse, so that they take no room, and each more than twice as large as the memory that is allowed.
#[test]
fn files_that_do_not_fit_into_memory_are_compared() {
    const SIZE: u64 = 512 << 20;
    let folder = scratch("manners_large");
    let info =
        serde_json::json!({ "dtype": "F32", "shape": [SIZE / 4], "data_offsets": [0, SIZE] });
    let header = serde_json::json!({ "w": info }).to_string();
    for name in ["expected", "actual"] {
        let mut file = fs::File::create(folder.join(name)).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        let end = 8 + header.len() as u64 + SIZE;
        file.set_len(end).unwrap();
        if name == "actual" {
            file.seek(SeekFrom::Start(end - 4)).unwrap();
            file.write_all(&1f32.to_le_bytes()).unwrap();
        }
    }
    let script = format!("ulimit -d 204800; cd {} && $T compare actual expected", folder.display());
    let output = shell(&script);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("index [134217727]"), "{text}");
}

/// A native and a portable case each have a process of their own, which must not go on without the program.
#[test]
fn a_program_that_is_ended_leaves_no_process_behind() {
    let folder = scratch("manners_groups");
    let record = "$T notebook --steps 400 --record";
    let script = format!(
        "cd {} && {record} p.safetensors >/dev/null && {record} n.safetensors --numerics native >/dev/null",
        folder.display()
    );
    stdout(&shell(&script));
    let mut cases = Vec::new();
    for i in 0..1500 {
        let link = |name: &str| {
            let link = folder.join(format!("{i}{name}"));
            fs::hard_link(folder.join(name), &link).unwrap();
            link
        };
        cases.extend([link("p.safetensors"), link("n.safetensors")]);
    }
    let mut child = tch_parity();
    let json = folder.join("report.json");
    let mut child = child
        .arg("check")
        .args(&cases)
        .arg("--json")
        .arg(json)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let children = |of: u32| {
        let output = Command::new("pgrep").args(["-P", &of.to_string()]).output().unwrap();
        let pids = String::from_utf8(output.stdout).unwrap();
        pids.lines().map(|pid| pid.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    while children(child.id()).len() < 2 {
        thread::sleep(Duration::from_millis(10));
    }
    let groups = children(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..600 {
        if groups.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{groups:?} are still there after 30 s");
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let folder = scratch("manners_nohup");
    for i in 0..300 {
        fs::copy(data("cases/float64.safetensors"), folder.join(format!("{i}.safetensors")))
            .unwrap();
    }
    let json = folder.join("report.json");
    let mut child = Command::new("nohup");
    child.arg(env!("CARGO_BIN_EXE_tch-parity")).arg("check").arg(&folder).arg("--json").arg(&json);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = |entry: fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".tmp");
    while !fs::read_dir(&folder).unwrap().any(|entry| begun(entry.unwrap())) {
        thread::sleep(Duration::from_millis(2));
    }
    let kill = Command::new("kill").args(["-s", "HUP", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(json.exists());
}
