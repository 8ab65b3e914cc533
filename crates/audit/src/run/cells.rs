//! Results of cells: a file each, written aside and renamed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jali::JaliError;
use serde::{Deserialize, Serialize};

use super::spec::{SPEC, Spec, read_json, read_spec, write_json};
use crate::AuditError;
use crate::grid::Cell;
use crate::results::Results;
use crate::train::Point;

/// Folder of the results.
const CELLS: &str = "cells";

/// The result of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellResult {
    /// [`Cell::id`].
    pub id: String,
    /// What made the plan.
    pub policy: String,
    /// Fraction of weights that was asked to be open.
    pub leaked: f64,
    /// Fraction that the plan permits.
    pub opened: f64,
    /// Labelled images.
    pub budget: usize,
    /// Who attacked.
    pub attacker: String,
    /// Of plan, images, draws and training.
    pub seed: u64,
    /// Part of the scoring images that the surrogate classifies rightly.
    pub accuracy: f64,
    /// Part on which it agrees with the victim.
    pub fidelity: f64,
    /// Which images it classifies rightly, four a hexadecimal digit.
    pub right: String,
    /// Learning rate chosen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// Learning curve.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub curve: Vec<Point>,
    /// Whether training ended on a plateau.
    pub plateau: bool,
    /// Wall time.
    pub seconds: f64,
    /// What trained: [`BURN`], or the command.
    #[serde(default = "burn")]
    pub engine: String,
    /// Why there is no copy, if a command failed; accuracy and fidelity are 0 then, and do not
    /// count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

/// The engine of the attackers of this program.
pub const BURN: &str = "burn";

/// [`BURN`], which results of before do not name.
pub(crate) fn burn() -> String {
    BURN.into()
}

/// Four images a hexadecimal digit, the first in the highest bit.
pub(super) fn pack(right: &[bool]) -> String {
    let digit = |four: &[bool]| four.iter().enumerate().map(|(i, r)| u32::from(*r) << (3 - i)).sum::<u32>();
    right.chunks(4).filter_map(|four| char::from_digit(digit(four), 16)).collect()
}

/// Reads [`CellResult::right`]; the last digit may give up to three images too many.
pub fn unpack(right: &str) -> Vec<bool> {
    let digits = right.chars().filter_map(|c| c.to_digit(16));
    digits.flat_map(|d| (0..4).map(move |i| d >> (3 - i) & 1 == 1)).collect()
}

pub(super) fn cell_path(folder: &Path, cell: &Cell) -> PathBuf {
    folder.join(CELLS).join(cell.id() + ".json")
}

/// Makes the folder of the results in that of a run, if need be.
///
/// # Errors
/// [`JaliError::Write`].
pub(super) fn make_cells(folder: &Path) -> Result<PathBuf, AuditError> {
    let cells = folder.join(CELLS);
    std::fs::create_dir_all(&cells).map_err(|e| JaliError::Write { path: cells.clone(), why: e.to_string() })?;
    Ok(cells)
}

/// Whether the run in a folder has a cell's result.
pub fn has_result(folder: &Path, cell: &Cell) -> bool {
    cell_path(folder, cell).is_file()
}

/// All results in a folder, in the order of their names. A copy under another name counts for
/// nothing.
///
/// # Errors
/// [`AuditError::File`] for a damaged one.
pub fn read_results(folder: &Path) -> Result<Vec<CellResult>, AuditError> {
    let cells = folder.join(CELLS);
    let fail = |e: std::io::Error| JaliError::Read { path: cells.clone(), why: e.to_string() };
    let mut paths = vec![];
    for entry in std::fs::read_dir(&cells).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut results = vec![];
    for path in paths {
        let result: CellResult = read_json(&path)?;
        if path.file_stem().is_some_and(|stem| *stem == *result.id) {
            results.push(result);
        }
    }
    Ok(results)
}

/// Joins the results of runs in other folders (from other machines), or in `results.json` files, to
/// this one's. Returns how many each had that were new. Nothing is written unless all fit.
///
/// # Errors
/// [`AuditError::Apart`] if two runs are not about the same.
pub fn merge(from: &[PathBuf], into: &Path) -> Result<Vec<usize>, AuditError> {
    let mut joined = match into.join(SPEC).is_file() {
        true => Some((into.to_path_buf(), read_spec(into)?)),
        false => None,
    };
    let mut all = vec![];
    for path in from {
        let (spec, results) = match path.is_file() {
            true => Results::read(path)?.into_run(path)?,
            false => (read_spec(path)?, read_results(path)?),
        };
        joined = Some(match joined {
            None => (path.clone(), spec),
            Some((first, old)) => {
                if let Some((what, expected, got)) = old.difference(&spec) {
                    return Err(AuditError::Apart { first, second: path.clone(), what, expected, got });
                }
                (first, Spec { grid: old.grid.union(&spec.grid), ..old })
            }
        });
        all.push(results);
    }
    let Some((_, joined)) = joined else { return Ok(vec![]) };
    // Names come from the grid, not from the other machine's files.
    let ids: BTreeSet<String> = joined.grid.cells()?.iter().map(Cell::id).collect();
    let cells = make_cells(into)?;
    write_json(&into.join(SPEC), &joined)?;
    let mut counts = vec![];
    for results in all {
        let mut new = 0;
        for result in results.iter().filter(|r| ids.contains(&r.id)) {
            new += usize::from(keep(&cells, result)?);
        }
        counts.push(new);
    }
    Ok(counts)
}

/// Keeps another machine's result if it is worth more than what is there.
fn keep(cells: &Path, result: &CellResult) -> Result<bool, AuditError> {
    let path = cells.join(format!("{}.json", result.id));
    // A copy is worth more than a failure, wherever that was.
    let is_new = !path.exists() || read_json::<CellResult>(&path)?.failure.is_some() && result.failure.is_none();
    if is_new {
        write_json(&path, result)?;
    }
    Ok(is_new)
}
