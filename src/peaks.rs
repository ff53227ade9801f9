//! How many operations a second devices were measured to do at best, kept from one run to the next: `inflight bench kernels`,
//! `bench train` and the suite measure it, and training tells by it what share of it a model makes use of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::replace_file;
use crate::error::{Error, Result};
use crate::executor::DeviceInfo;
use crate::source::fetch::default_cache_dir;

/// The file that keeps them.
const FILE: &str = "peaks.json";

/// What a device does at best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// Operations a second in `f32`, of products in registers.
    pub f32_flops_per_s: f64,
    /// Where activations have 16 bits, by the fastest way there is.
    pub f16_flops_per_s: f64,
}

impl Peak {
    fn is_sound(&self) -> bool {
        let rates = [self.f32_flops_per_s, self.f16_flops_per_s];
        rates.iter().all(|rate| rate.is_finite() && *rate > 0.0)
    }
}

/// Where peaks are kept.
///
/// # Errors
/// When the system has no place for it.
pub fn file() -> Result<PathBuf> {
    Ok(default_cache_dir()?.join(FILE))
}

/// Keeps what was measured in `file`, where it is more than what was measured before: a device that others use does less than
/// its best. What is no rate is not kept.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(file: &Path, device: &DeviceInfo, peak: Peak) -> Result<()> {
    if !peak.is_sound() {
        return Ok(());
    }
    let mut all = read(file);
    let best = all.entry(name(device)).or_insert(peak);
    best.f32_flops_per_s = best.f32_flops_per_s.max(peak.f32_flops_per_s);
    best.f16_flops_per_s = best.f16_flops_per_s.max(peak.f16_flops_per_s);
    let json = serde_json::to_vec_pretty(&all)
        .map_err(|e| Error::data(file.display(), "cannot be written as JSON").caused_by(e))?;
    replace_file(file, &json)
}

/// What was measured on this device, if it ever was.
pub fn known(file: &Path, device: &DeviceInfo) -> Option<Peak> {
    read(file).remove(&name(device)).filter(Peak::is_sound)
}

/// A file that is missing or damaged knows nothing.
fn read(file: &Path) -> BTreeMap<String, Peak> {
    let json = std::fs::read(file).unwrap_or_default();
    serde_json::from_slice(&json).unwrap_or_default()
}

/// The device with all that its speed depends on; the processor with the threads that compute.
fn name(device: &DeviceInfo) -> String {
    let DeviceInfo { name, backend, kind, driver, .. } = device;
    let threads = match device.shares_cores() {
        true => format!(", {} threads", rayon::current_num_threads()),
        false => String::new(),
    };
    format!("{name} ({backend}, {kind}, {driver}{threads})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_known_of_that_device_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("below").join(FILE);
        let device = |name: &str| DeviceInfo { name: name.into(), ..DeviceInfo::default() };
        assert_eq!(known(&file, &device("a")), None);
        let peak = |x| Peak { f32_flops_per_s: x, f16_flops_per_s: 2.0 * x };
        keep(&file, &device("a"), peak(3.0)).expect("writes");
        keep(&file, &device("b"), peak(f64::INFINITY)).expect("writes");
        assert_eq!(known(&file, &device("a")), Some(peak(3.0)));
        assert_eq!(known(&file, &device("b")), None);
        keep(&file, &device("a"), Peak { f16_flops_per_s: 7.0, ..peak(2.0) }).expect("writes");
        assert_eq!(known(&file, &device("a")), Some(Peak { f16_flops_per_s: 7.0, ..peak(3.0) }));
        keep(&file, &device("a"), peak(4.0)).expect("writes");
        assert_eq!(known(&file, &device("a")), Some(peak(4.0)));
        std::fs::write(&file, "{").expect("writes");
        assert_eq!(known(&file, &device("a")), None);
    }
}
