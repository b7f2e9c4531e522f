//! `scripts/setup` says in one line what is missing, and does nothing twice.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::common::{ROOT, scratch};

/// A stand-in for Python that is new enough, has venv, and creates virtual environments whose pip fails.
const PYTHON: &str = r#"
case "$*" in
    "-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip install "*) echo "Collecting torch"; echo "ERROR: No matching distribution found"; exit 1 ;;
esac"#;

/// A copy of the scripts on a machine whose programs are stand-ins.
struct Machine {
    root: PathBuf,
    bin: PathBuf,
}

impl Machine {
    fn new(name: &str) -> Machine {
        let root = scratch(name);
        let bin = root.join("bin");
        fs::create_dir_all(root.join("scripts")).unwrap();
        fs::create_dir(&bin).unwrap();
        for script in ["setup", "root.sh", "requirements.txt"] {
            fs::copy(
                Path::new(ROOT).join("scripts").join(script),
                root.join("scripts").join(script),
            )
            .unwrap();
        }
        for tool in [
            "awk", "bash", "cmp", "cp", "dirname", "env", "grep", "ln", "mkdir", "readlink", "sed",
            "tail",
        ] {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
            symlink(found.iter().find(|path| path.exists()).expect(tool), bin.join(tool)).unwrap();
        }
        let machine = Machine { root, bin };
        let machine = machine.tool("cargo", "").tool("c++", "").tool("python3", PYTHON);
        machine.tool("df", "printf 'Filesystem\nX 0 0 99000000 0 /\n'")
    }

    /// Replaces a program by one of this text.
    fn tool(self, name: &str, text: &str) -> Machine {
        self.put(name, text);
        self
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.bin.join(name);
        fs::write(&path, format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn without(self, name: &str) -> Machine {
        fs::remove_file(self.bin.join(name)).unwrap();
        self
    }

    fn setup(&self, libtorch: Option<&str>) -> (Option<i32>, String) {
        self.setup_with(&libtorch.map_or(vec![], |libtorch| vec![("LIBTORCH", libtorch)]))
    }

    fn setup_with(&self, variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new(self.root.join("scripts/setup"));
        command.env_clear().env("PATH", &self.bin).envs(variables.iter().copied());
        command.current_dir("/");
        // Another test can start a process while a file of this one is open to be written, and holds it for a moment.
        let output = loop {
            match command.output() {
                Err(err) if err.kind() == ErrorKind::ExecutableFileBusy => {
                    sleep(Duration::from_millis(10))
                }
                output => break output.unwrap(),
            }
        };
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn assert_refuses(&self, libtorch: Option<&str>, says: &str) {
        let (code, stderr) = self.setup(libtorch);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
        assert!(!self.root.join(".venv").exists());
    }
}

#[test]
fn a_missing_tool_is_named_with_what_to_install() {
    Machine::new("setup_cargo")
        .without("cargo")
        .assert_refuses(None, "no cargo on the PATH: install Rust");
    let no_compiler = "no C++17 compiler (c++): install one";
    Machine::new("setup_compiler").without("c++").assert_refuses(None, no_compiler);
    Machine::new("setup_old_compiler").tool("c++", "exit 1").assert_refuses(None, no_compiler);
    let no_python = "no python3 to be found: install Python 3.10 or newer";
    Machine::new("setup_python").without("python3").assert_refuses(None, no_python);
    let old = r#"case "$*" in *version_info*) exit 1 ;; esac"#;
    Machine::new("setup_old_python")
        .tool("python3", old)
        .assert_refuses(None, "python3 is not Python 3.10 or newer");
    let no_venv = r#"case "$*" in *ensurepip*) echo Traceback >&2; exit 1 ;; esac"#;
    Machine::new("setup_venv")
        .tool("python3", no_venv)
        .assert_refuses(None, "the package python3-venv");
    let full = "printf 'Filesystem\nX 0 0 3000000 0 /\n'";
    Machine::new("setup_disk").tool("df", full).assert_refuses(None, "2 GiB free in ");
}

#[test]
fn what_pip_says_is_one_line_and_the_next_run_starts_again() {
    let machine = Machine::new("setup_pip");
    for _ in 0..2 {
        let (code, stderr) = machine.setup(None);
        assert_eq!(code, Some(2), "{stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(
            last.contains("could not install PyTorch: ERROR: No matching distribution found"),
            "{stderr}"
        );
        assert_eq!(stderr.matches('\n').count(), 2, "{stderr}"); // what it is about to do, and the error
        assert!(!machine.root.join("libtorch").exists());
    }
}

#[test]
fn an_index_that_cannot_be_reached_and_a_folder_that_cannot_be_made_are_a_line_each() {
    let dead = PYTHON.replace(
        "No matching distribution found",
        "Could not find a version that satisfies the requirement torch (from versions: none)",
    );
    let (code, stderr) = Machine::new("setup_dead_index").tool("python3", &dead).setup(None);
    assert_eq!(code, Some(2), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(
        last.contains("no package index with it can be reached: look at the network"),
        "{last}"
    );
    let machine = Machine::new("setup_versions");
    fs::write(machine.root.join(".versions"), "no folder").unwrap();
    let (code, stderr) = machine.setup_with(&[("TORCH_VERSION", "2.11.0")]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(".versions/2.11.0: make its folder writable"), "{stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
}

#[test]
fn a_libtorch_of_the_users_own_is_all_that_is_needed() {
    let machine = Machine::new("setup_own").without("python3");
    let own = machine.root.join("own");
    fs::create_dir_all(own.join("lib")).unwrap();
    machine.assert_refuses(Some("own"), "LIBTORCH=own is a relative path");
    machine.assert_refuses(own.to_str(), "holds no lib/libtorch_cpu");
    fs::write(own.join("lib/libtorch_cpu.so"), "").unwrap();
    machine.assert_refuses(own.to_str(), "is libtorch of a version without ");
    let headers = own.join("include/torch/headeronly");
    fs::create_dir_all(&headers).unwrap();
    let version = |[major, minor, patch]: [u32; 3]| {
        let text = format!(
            "#define TORCH_VERSION_MAJOR {major}\n#define TORCH_VERSION_MINOR {minor}\n\
             #define TORCH_VERSION_PATCH {patch}\n#define TORCH_VERSION_ABI_TAG 0\n"
        );
        fs::write(headers.join("version.h"), text).unwrap();
    };
    version([2, 11, 0]);
    machine.assert_refuses(own.to_str(), "is libtorch 2.11.0, and 2.13.0 is asked for");
    version([2, 13, 0]);
    assert_eq!(machine.setup(own.to_str()), (Some(0), String::new()));
    for made in [".venv", "libtorch", ".cargo"] {
        assert!(!machine.root.join(made).exists(), "{made}");
    }
}

#[test]
fn a_libtorch_that_no_tch_is_made_for_is_refused() {
    let machine = Machine::new("setup_unsupported");
    for version in ["2.12.0", "2.10.0", "3", "../x"] {
        let (code, stderr) = machine.setup_with(&[("TORCH_VERSION", version)]);
        assert_eq!(code, Some(2), "{stderr}");
        let says = format!("no tch is made for libtorch {version}: the supported ones are 2.13.0");
        assert!(stderr.contains(&says) && stderr.matches('\n').count() == 1, "{stderr}");
        assert!(!machine.root.join(".versions").exists());
    }
}

#[test]
fn another_version_is_set_up_in_a_folder_of_its_own() {
    let machine = Machine::new("setup_version");
    let lock = "[[package]]\nname = \"tch\"\nversion = \"0.26.0\"\n";
    fs::write(machine.root.join("Cargo.lock"), lock).unwrap();
    fs::write(machine.root.join("Cargo.toml"), "[package]").unwrap();
    let machine = machine.tool("cargo", r#"echo "$PWD $*" >>"$(dirname "$0")/cargo.log""#);
    let (code, stderr) = machine.setup_with(&[("TORCH_VERSION", "2.11.0")]);
    assert_eq!(code, Some(2), "{stderr}");
    let folder = machine.root.join(".versions/2.11.0");
    let installing = format!("installing torch==2.11.0 into {}", folder.join(".venv").display());
    assert!(stderr.contains(&installing) && stderr.contains("could not install"), "{stderr}");
    let asked = fs::read_to_string(machine.bin.join("cargo.log")).unwrap();
    assert_eq!(asked, format!("{} update --package tch --precise 0.24.0\n", folder.display()));
    assert_eq!(fs::read_to_string(folder.join("Cargo.toml")).unwrap(), "[package]");
    let requirements = fs::read_to_string(folder.join("requirements.txt")).unwrap();
    assert!(requirements.contains("torch==2.11.0\n") && requirements.contains("\nsafetensors=="));
    // The default setup is unchanged.
    assert_eq!(fs::read_to_string(machine.root.join("Cargo.lock")).unwrap(), lock);
    assert!(!machine.root.join(".venv").exists() && !machine.root.join("libtorch").exists());
}

#[test]
fn a_folder_in_the_place_of_the_link_is_not_touched() {
    let machine = Machine::new("setup_folder");
    fs::create_dir(machine.root.join("libtorch")).unwrap();
    machine.assert_refuses(None, "libtorch is not a link of this script's");
}

#[test]
fn a_second_run_has_nothing_to_do() {
    let machine = Machine::new("setup_again").without("python3");
    fs::create_dir_all(machine.root.join("torch/lib")).unwrap();
    fs::write(machine.root.join("torch/lib/libtorch_cpu.so"), "").unwrap();
    symlink("torch", machine.root.join("libtorch")).unwrap();
    fs::create_dir_all(machine.root.join(".venv/bin")).unwrap();
    symlink("/bin/true", machine.root.join(".venv/bin/python")).unwrap();
    fs::copy(
        machine.root.join("scripts/requirements.txt"),
        machine.root.join(".venv/installed.txt"),
    )
    .unwrap();
    assert_eq!(machine.setup(None), (Some(0), String::new()));
    let config = machine.root.join(".cargo/config.toml");
    let written = fs::read_to_string(&config).unwrap();
    assert!(written.ends_with("[env]\nLIBTORCH = { value = \"libtorch\", relative = true }\n"));

    // What the user has made of it stays.
    fs::write(&config, "# mine\n").unwrap();
    assert_eq!(machine.setup(None), (Some(0), String::new()));
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");

    // If Python is gone or the requirements have changed, the environment is set up again.
    fs::remove_file(machine.root.join(".venv/bin/python")).unwrap();
    assert!(machine.setup(None).1.contains("no python3 to be found"));
    symlink("/bin/true", machine.root.join(".venv/bin/python")).unwrap();
    fs::write(machine.root.join("scripts/requirements.txt"), "torch==9\n").unwrap();
    machine.put("python3", PYTHON);
    assert_eq!(machine.setup(None).0, Some(2));
}
