//! Files that are mistaken for files of tensors.

const HTML: &str = "an HTML page, such as a download that failed: download the file again";
const ARCHIVE: &str = "an archive: unpack it, and name the file that is in it";
const PICKLE: &str = "a pickle, such as an old PyTorch checkpoint: load it with torch.load, and save it with torch.save";

/// Beginnings of files, compared without regard to the case of letters.
const BEGINNINGS: [(&[u8], &str); 10] = [
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which stands for the file: run `git lfs pull`",
    ),
    (b"<!doctype html", HTML),
    (b"<html", HTML),
    (b"<?xml", "an XML document, such as a download that failed: download the file again"),
    (
        b"GGUF",
        "a GGUF file, whose weights may be quantized: convert it, or name the model's safetensors file",
    ),
    (b"\x89HDF", "an HDF5 file, as Keras writes it: convert it with safetensors.numpy.save_file"),
    (b"\x1f\x8b", ARCHIVE),
    (b"\xfd7zXZ", ARCHIVE),
    (b"\x28\xb5\x2f\xfd", ARCHIVE),
    (b"BZh", ARCHIVE),
];

/// Returns what a file is instead of a safetensors file, and what to do about it, if its first bytes show it.
pub(super) fn what_else_it_is(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("an empty file");
    }
    // Texts may begin with a byte order mark and white space, as templates of HTML do.
    let begun = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let start = |beginning: &[u8]| {
        begun.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
    };
    if start(b"PK\x03\x04") {
        return Some(
            "a zip archive without a PyTorch checkpoint's data.pkl and without NumPy's arrays; `run` runs a .pt2 file",
        );
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some(ARCHIVE);
    }
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| start(beginning)) {
        return Some(what);
    }
    // A safetensors file begins with its header's length, which can look like these two. Its last bytes are zero.
    let is_length = bytes.get(5..8) == Some(&[0; 3]);
    if let [0x80, 2..=5, ..] = bytes
        && !is_length
    {
        return Some(PICKLE);
    }
    if let [8, _, 0x12, _, producer, ..] = bytes
        && producer.is_ascii_alphabetic()
        && !is_length
    {
        return Some(
            "an ONNX model: save the PyTorch model's tensors with safetensors.torch.save_file",
        );
    }
    let text = String::from_utf8_lossy(bytes.get(..4096).unwrap_or(bytes));
    match text.trim_start().starts_with('{') {
        true if text.contains("\"weight_map\"") => Some(
            "the index of a checkpoint in several files, which lie beside it: load it by its path",
        ),
        true => {
            Some("a JSON file, such as a model's configuration: name the file with the tensors")
        }
        false => None,
    }
}
