//! The share of the cases that one of several machines checks.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};

/// A share such as `2/8`: of eight, the second.
#[derive(Clone, Copy)]
pub(super) struct Partition {
    number: usize,
    count: usize,
}

impl FromStr for Partition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Partition> {
        let parsed = text.split_once('/').and_then(|(number, count)| {
            Some(Partition { number: number.parse().ok()?, count: count.parse().ok()? })
        });
        let partition = parsed.context("it is not of the form M/N, such as 2/8")?;
        let fits = (1..=partition.count).contains(&partition.number);
        ensure!(fits, "M has to be from 1 to N, such as 2/8");
        Ok(partition)
    }
}

impl Partition {
    /// Returns the files of this share, which are every N-th one, so that large cases of one folder are spread.
    ///
    /// # Errors
    /// Returns an error if there are none, since a check of nothing proves nothing.
    pub(super) fn of(self, files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
        let Partition { number, count } = self;
        let found = files.len();
        let files = files.into_iter().skip(number - 1).step_by(count).collect::<Vec<_>>();
        ensure!(
            !files.is_empty(),
            "--partition {number}/{count} has none of the cases, of which there are {found}: use fewer partitions"
        );
        Ok(files)
    }
}
