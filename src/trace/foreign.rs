//! Files that are mistaken for safetensors files.

/// Returns what a file is instead of a safetensors file, and what to do about it, if its first bytes show it.
pub(super) fn what_else_it_is(bytes: &[u8]) -> Option<&'static str> {
    const BEGINNINGS: [(&[u8], &str); 6] = [
        (
            b"version https://git-lfs",
            "a Git LFS pointer, which stands for the file: run `git lfs pull`",
        ),
        (
            b"PK\x03\x04",
            "a zip archive, such as a PyTorch checkpoint (.pt): load it with torch.load, and save it with \
             safetensors.torch.save_file",
        ),
        (
            b"\x80\x02",
            "a pickle, such as an old PyTorch checkpoint: load it with torch.load, and save it with \
             safetensors.torch.save_file",
        ),
        (
            b"<!doctype html",
            "an HTML page, such as a download that failed: download the file again",
        ),
        (b"<html", "an HTML page, such as a download that failed: download the file again"),
        (
            b"\x93NUMPY",
            "a NumPy array (.npy): load it with numpy.load, and save it with safetensors.numpy",
        ),
    ];
    let start = |beginning: &[u8]| {
        bytes.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
    };
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| start(beginning)) {
        return Some(what);
    }
    let text = std::str::from_utf8(bytes.get(..4096).unwrap_or(bytes)).ok()?;
    let is_index = text.trim_start().starts_with('{') && text.contains("\"weight_map\"");
    is_index.then_some(
        "the index of a checkpoint in several files: name one of the files that it lists",
    )
}
