//! `curves_coarse.csv`: curves of the same kernels on CUs cut in whole groups, where kernels that use
//! thread-block clusters exist. A file of its own, since it is another device: one CU count would
//! have two durations. Policies cut in the finest atoms and read `curves.csv`; this file says what
//! that costs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::FileError;
use super::read::{CURVES, KERNELS, agree, curves_of, identity, load, load_text};
use super::write::{csv, curve_row, put, remove};
use crate::curve::{Curve, Point};
use crate::device::Device;
use crate::kernel::Kernel;

const FILE: &str = "curves_coarse.csv";

/// Curves in whole groups, by the id of the kernel.
pub type CoarseCurves = BTreeMap<String, Curve>;

/// Writes `points` by kernel beside the curves of a profile folder, with the same head. If there are no
/// points, removes the file of an earlier collection.
///
/// # Errors
/// There are no curves, or the system refuses.
pub fn write_coarse(
    dir: &Path,
    group: u32,
    points: &BTreeMap<String, Vec<Point>>,
) -> Result<(), FileError> {
    let path = dir.join(FILE);
    if points.is_empty() {
        return remove(&path);
    }
    let curves = load_text(&dir.join("curves.csv"))?;
    let mut head: String =
        curves.lines().take_while(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    head += &format!("# granularity=groups of {group} CUs, as the driver cuts them\n");
    let rows = points.iter().flat_map(|(id, points)| points.iter().map(|p| curve_row(id, p)));
    put(&path, &csv(&head, CURVES, rows))
}

/// Reads the curves in whole groups of the profile in `dir`. The result is empty if none were measured.
///
/// # Errors
/// A file that does not read, or is of another device or source than the profile, or has kernels
/// that the profile does not have.
pub fn read_coarse(dir: &Path, device: &Device) -> Result<CoarseCurves, FileError> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(CoarseCurves::new());
    }
    let kernels = load(&dir.join("kernels.csv"), KERNELS)?;
    identity(&kernels)?;
    let table = load(&path, CURVES)?;
    agree(&table, &kernels)?;
    let ids: BTreeSet<&str> = kernels.rows().map(|row| row.text("kernel")).collect();
    curves_of(&table, &ids, Some(device))
}

/// A kernel on CUs of both kinds of partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Both {
    /// CUs.
    pub cus: u32,
    /// Time in whole groups over the time in the finest atoms.
    pub ratio: f64,
}

/// The CU counts at which a kernel was measured on both kinds of partition, without interpolation.
pub fn both<'a>(kernel: &'a Kernel, coarse: &'a CoarseCurves) -> impl Iterator<Item = Both> + 'a {
    let fine = kernel.curve.points();
    let groups = coarse.get(&kernel.id).map_or(&[][..], Curve::points).iter();
    groups.filter_map(move |p| {
        let at = fine.binary_search_by_key(&p.cus, |f| f.cus).ok()?;
        let ratio = p.duration_ns as f64 / fine[at].duration_ns as f64;
        Some(Both { cus: p.cus, ratio })
    })
}
