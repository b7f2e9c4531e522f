//! The numbers that PyTorch's schema of programs has for dtypes, layouts and memory formats.

use anyhow::{Context, Result, bail};
use tch::Kind;

/// The number of `Strided` in PyTorch's schema of programs.
pub(super) const STRIDED: i64 = 7;

/// The dtypes by their numbers in PyTorch's schema of programs, each with its number in `c10::ScalarType`.
const DTYPES: [(i64, i64, Kind); 17] = [
    (1, 0, Kind::Uint8),
    (2, 1, Kind::Int8),
    (3, 2, Kind::Int16),
    (4, 3, Kind::Int),
    (5, 4, Kind::Int64),
    (6, 5, Kind::Half),
    (7, 6, Kind::Float),
    (8, 7, Kind::Double),
    (9, 8, Kind::ComplexHalf),
    (10, 9, Kind::ComplexFloat),
    (11, 10, Kind::ComplexDouble),
    (12, 11, Kind::Bool),
    (13, 15, Kind::BFloat16),
    (29, 24, Kind::Float8e4m3fn),
    (30, 23, Kind::Float8e5m2),
    (31, 26, Kind::Float8e4m3fnuz),
    (32, 25, Kind::Float8e5m2fnuz),
];

/// Returns the number of a dtype in `c10::ScalarType`, and tch's word for it.
pub(crate) fn dtype(number: i64) -> Result<(i64, Kind)> {
    let found = DTYPES.iter().find(|(known, ..)| *known == number);
    let unknown = || match number {
        28 => "torch.uint16 is not supported, which tch has no word for".to_owned(),
        other => format!("the dtype with the number {other} is not supported"),
    };
    let &(_, number, kind) = found.with_context(unknown)?;
    Ok((number, kind))
}

/// Returns the number of a memory format in `c10::MemoryFormat`.
pub(crate) fn memory_format(format: i64) -> Result<i64> {
    match format {
        1 => Ok(0), // contiguous
        2 => Ok(2), // channels last
        3 => Ok(3), // channels last in three dimensions
        4 => Ok(1), // as it is
        _ => bail!("memory format {format} is not supported"),
    }
}
