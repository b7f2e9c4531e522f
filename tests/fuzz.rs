//! Damaged files and metadata, drawn anew, through reading, comparing, the control and every report: the bounded
//! share of what `cargo fuzz run` does with the same targets.

#![cfg(feature = "libtorch")]

mod common;
#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{ROOT, Random, data, pytorch, scratch, seed};
use rawzip::{ZipArchive, ZipArchiveWriter};
use safetensors::tensor::{Dtype, TensorView};
use tch::Device;
use tch_parity::{Case, Numerics, ProgramReplay, Replay, Trace, selftest};

fn random() -> Random {
    let seed = seed();
    println!("to repeat: TCH_PARITY_SEED={seed}");
    Random::new(&seed)
}

trait Draw {
    fn damaged(&mut self, bytes: &[u8]) -> Vec<u8>;
    fn file(&mut self) -> Vec<u8>;
}

impl Draw for Random {
    /// Changes up to four places of `bytes`, by a bit, by a token, or by a cut.
    fn damaged(&mut self, bytes: &[u8]) -> Vec<u8> {
        const TOKENS: [&[u8]; 14] = [
            b"0",
            b"99999999999999999999",
            b"-1",
            b"\"",
            b"[",
            b"}",
            b"F64",
            b"F8_E4M3",
            b"C64",
            b"\xff",
            b"null",
            b"1e400",
            b"\\u0000",
            b"[0,9223372036854775807]",
        ];
        let mut bytes = bytes.to_vec();
        for _ in 0..self.below(5) {
            let at = self.below(bytes.len());
            let token = TOKENS[self.below(TOKENS.len())];
            match self.below(5) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.splice(at..at, token.iter().copied())),
                3 => {
                    let end = (at + token.len()).min(bytes.len());
                    drop(bytes.splice(at..end, token.iter().copied()));
                }
                _ if self.below(4) == 0 => bytes.truncate(at),
                _ => {}
            }
        }
        bytes
    }

    /// A file whose header fits its length, of tensors of any dtype, with some of the names that are hard to show.
    fn file(&mut self) -> Vec<u8> {
        const DTYPES: [(&str, usize); 12] = [
            ("F32", 4),
            ("F64", 8),
            ("F16", 2),
            ("BF16", 2),
            ("I64", 8),
            ("U16", 2),
            ("U64", 8),
            ("BOOL", 1),
            ("C64", 8),
            ("F8_E4M3", 1),
            ("F8_E8M0", 1),
            ("U8", 1),
        ];
        const NAMES: [&str; 8] = [
            "a",
            "grad/h",
            "forward/h",
            "step/2/L",
            "\u{1b}[2J\u{0}",
            "::error::x",
            "##[e]\n",
            "ä.\u{ffff}",
        ];
        let mut header = serde_json::Map::new();
        let mut bytes = Vec::new();
        for _ in 0..self.below(6) {
            let (dtype, size) = DTYPES[self.below(DTYPES.len())];
            let shape = (0..self.below(4)).map(|_| self.below(5)).collect::<Vec<_>>();
            let mut name = NAMES[self.below(NAMES.len())].to_owned();
            if self.below(8) == 0 {
                name = name.repeat(1 + self.below(3000));
            }
            if header.contains_key(&name) {
                continue;
            }
            let begin = bytes.len();
            let length = shape.iter().product::<usize>() * size;
            bytes.extend((0..length).map(|_| self.below(256) as u8));
            let offsets = [begin, bytes.len()];
            let info = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
            header.insert(name, info);
        }
        let header = serde_json::Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat()
    }
}

fn stored() -> Vec<Vec<u8>> {
    let names =
        ["cases/zero.safetensors", "cases/dead.safetensors", "tensor_str/tensors.safetensors"];
    let mut files = names.map(|name| fs::read(data(name)).unwrap()).to_vec();
    files.push(fs::read(Path::new(ROOT).join("examples/mlp.safetensors")).unwrap());
    files
}

/// Calls `target` for so many seconds' worth of inputs, at least 300.
fn fuzz(mut target: impl FnMut(&mut Random)) {
    let mut random = random();
    let start = Instant::now();
    let mut count = 0;
    while count < 300 || start.elapsed() < Duration::from_secs(3) {
        target(&mut random);
        count += 1;
    }
    println!("{count} inputs");
}

#[test]
fn files_of_any_kind_are_read_or_refused() {
    let stored = stored();
    fuzz(|random| {
        let file = match random.below(2) {
            0 => random.file(),
            _ => stored[random.below(stored.len())].clone(),
        };
        targets::read(&random.damaged(&file));
    });
}

/// The archives are packed anew, since a sum that is wrong would hide what is damaged.
#[test]
fn checkpoints_and_arrays_of_any_kind_are_read_or_refused() {
    let folder = scratch("fuzz_files");
    pytorch("tests/checkpoints.py", &[folder.to_str().unwrap(), "good"]);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|kind| kind != "safetensors"));
    let files = files.map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    assert!(files.len() > 10);
    let mut read = 0;
    fuzz(|random| {
        let file = &files[random.below(files.len())];
        if random.below(4) == 0 || !file.starts_with(b"PK") {
            return targets::read(&random.damaged(file));
        }
        let archive = ZipArchive::from_slice(file).unwrap();
        let mut packed = Vec::new();
        let mut writer = ZipArchiveWriter::new(&mut packed);
        let mut entries = archive.entries();
        while let Some(entry) = entries.next_entry().unwrap() {
            let name = entry.file_path().try_normalize().unwrap().as_ref().to_owned();
            let data = archive.get_entry(entry.wayfinder()).unwrap().data().to_vec();
            let is_hit = name.ends_with("data.pkl") || random.below(8) == 0;
            let data = if is_hit { random.damaged(&data) } else { data };
            let (mut file, config) = writer.new_file(&name).start().unwrap();
            let mut contents = config.wrap(&mut file);
            contents.write_all(&data).unwrap();
            let (_, descriptor) = contents.finish().unwrap();
            file.finish(descriptor).unwrap();
        }
        writer.finish().unwrap();
        read += usize::from(Trace::from_bytes(packed.clone()).is_ok());
        targets::read(&packed);
    });
    assert!(read > 0);
}

#[test]
fn metadata_of_any_kind_is_read_or_refused() {
    let metadata = stored().into_iter().filter_map(|file| {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice::<serde_json::Value>(&file[8..8 + length]).unwrap();
        let text = header["__metadata__"]["tch-parity"].as_str()?;
        let order = text.find("\"order\":[")?;
        let end = order + text[order..].find(']')?;
        // The second reading has strides, which the tensor of one element could have had.
        let rests = ["", "],\"strides\":{\"a\":[2]}"].map(|strides| match strides {
            "" => text[end..].to_owned(),
            strides => format!("{strides}{}", &text[end + 1..]),
        });
        Some(rests.map(|rest| format!("{}\"order\":[\"a\"{rest}", &text[..order])))
    });
    let metadata = metadata.flatten().collect::<Vec<_>>();
    metadata.iter().for_each(|text| assert!(targets::metadata(text.as_bytes()), "{text}"));
    assert!(Trace::load(data("cases/zero.safetensors")).is_ok() && metadata.len() >= 3);
    fuzz(|random| {
        let text = metadata[random.below(metadata.len())].as_bytes().to_vec();
        let _ = targets::metadata(&random.damaged(&text));
    });
}

#[test]
fn programs_of_any_kind_are_read_or_refused() {
    let stored = Trace::load(Path::new(ROOT).join("examples/mlp.safetensors")).unwrap();
    let graph = stored.get("program/graph").unwrap().data().to_vec();
    let with = |graph: &[u8]| {
        let mut trace = Trace::new();
        let graph = TensorView::new(Dtype::U8, vec![graph.len()], graph).unwrap();
        for (name, view) in stored.iter() {
            let view = if name == "program/graph" { &graph } else { &view };
            trace.push_view(name, view).unwrap();
        }
        let run = stored.run::<serde_json::Value>().unwrap().unwrap();
        trace.describe(&run, &stored.environment::<serde_json::Value>().unwrap().unwrap()).unwrap();
        ProgramReplay::new(Case::new(trace).unwrap())
    };
    with(&graph).unwrap();
    fuzz(|random| drop(with(&random.damaged(&graph))));
}

#[test]
fn files_of_any_kind_are_compared_and_reported_in_every_format() {
    fuzz(|random| {
        let expected = random.file();
        let actual = match random.below(3) {
            0 => random.file(),
            1 => expected.clone(),
            _ => random.damaged(&expected),
        };
        let length = (actual.len().min(u16::MAX.into()) as u16).to_le_bytes();
        targets::comparison(&[&length[..], &actual, &expected].concat());
    });
}

#[test]
fn cases_of_any_values_are_replayed_and_pass_or_fail_the_control() {
    // As the case was recorded, so that undamaged it is the same: starts this process once more.
    Numerics::Portable.restart_with().unwrap();
    let stored = fs::read(data("cases/zero.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(stored[..8].try_into().unwrap()) as usize;
    let mut replayed = 0;
    fuzz(|random| {
        // Of the values alone, so that most can be replayed.
        let mut bytes = stored.clone();
        for _ in 0..random.below(4) {
            let at = header + random.below(bytes.len() - header);
            bytes[at] ^= 1 << random.below(8);
        }
        let replay = Trace::from_bytes(bytes).and_then(Case::new).and_then(Replay::new).unwrap();
        Numerics::Portable.set_for_thread();
        if let Ok(trace) = replay.run(Device::Cpu) {
            let controls = selftest(&trace, &replay.case.trace, &mut || ());
            replayed += usize::from(controls.is_ok());
            for control in controls.unwrap_or_default() {
                assert!(control.passed.is_empty(), "{control:?}");
            }
            // What was damaged is found, unless it was the same.
            let _ = selftest(&trace, &trace, &mut || ());
        }
    });
    assert!(replayed > 0);
}
