//! The case files that a command line names.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Error, anyhow};

/// The case files that were found, in order, and the paths that could not be searched.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) errors: Vec<(PathBuf, Error)>,
}

impl Found {
    /// Adds a file as it is, and of a folder every `*.safetensors` below it.
    pub(super) fn add(&mut self, path: &Path) {
        if !path.is_dir() {
            return self.files.push(path.to_owned());
        }
        let before = self.files.len() + self.errors.len();
        self.search(path);
        if self.files.len() + self.errors.len() == before {
            let err = anyhow!("{} holds no *.safetensors file", path.display());
            self.errors.push((path.to_owned(), err));
        }
    }

    /// Searches a folder. One below it that cannot be read does not hide the others.
    fn search(&mut self, folder: &Path) {
        if let Err(err) = self.search_in(folder) {
            let context = format!("cannot search {}", folder.display());
            self.errors.push((folder.to_owned(), Error::from(err).context(context)));
        }
    }

    fn search_in(&mut self, folder: &Path) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            // Links are not followed, so that none leads in a circle.
            if entry.file_type()?.is_dir() {
                self.search(&entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
                self.files.push(entry.path());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in the place of a folder cannot be searched by anybody, root included.
    #[test]
    fn a_folder_that_cannot_be_searched_is_named_and_hides_no_other() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let mut found = Found::default();
        found.search(&data.join("notebook.txt"));
        found.add(&data.join("cases"));
        let errors = found.errors.iter().map(|(_, err)| format!("{err:#}")).collect::<Vec<_>>();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("cannot search ") && errors[0].contains("notebook.txt: "));
        assert_eq!(found.files.len(), 9);
    }
}
