//! Under what conditions a benchmark ran: clocks, temperatures, load, as far as the system tells them. Nothing here is an
//! error: what is not told is not there.

use std::collections::BTreeMap;
use std::path::Path;

use crate::report::memory::machine_memory_bytes;

/// What the system tells of itself now, by name: `cpu_mhz`, `load_1min`, `temperature_c/NAME`, and of GPUs whose tools or
/// drivers tell, `gpu_mhz/NAME`, `gpu_temperature_c/NAME`, `gpu_power_w/NAME`.
pub(super) fn now() -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    if let Some(mhz) = cpu_mhz() {
        found.insert("cpu_mhz".into(), mhz);
    }
    if let Some(load) = first_number(Path::new("/proc/loadavg")) {
        found.insert("load_1min".into(), load);
    }
    for (name, celsius) in zones() {
        found.insert(format!("temperature_c/{name}"), celsius);
    }
    sysfs_gpus(&mut found);
    nvidia(&mut found);
    found
}

/// Words about the host: its processor, system, memory.
pub(super) fn host() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |name: &str, value: Option<String>| found.extend(value.map(|v| (name.into(), v)));
    add("os", Some(std::env::consts::OS.into()));
    add("arch", Some(std::env::consts::ARCH.into()));
    add("processor", Some(crate::cpu::device_info().name));
    add("cores", std::thread::available_parallelism().ok().map(|n| n.to_string()));
    add("kernel", text(Path::new("/proc/sys/kernel/osrelease")));
    add("governor", text(Path::new("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")));
    add("memory_bytes", machine_memory_bytes("MemTotal:").map(|bytes| bytes.to_string()));
    found
}

/// The mean clock of all cores.
fn cpu_mhz() -> Option<f64> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let lines = info.lines().filter(|line| line.starts_with("cpu MHz"));
    let clocks: Vec<f64> =
        lines.filter_map(|line| line.split_once(':')?.1.trim().parse().ok()).collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

fn zones() -> Vec<(String, f64)> {
    let zones = std::fs::read_dir("/sys/class/thermal").into_iter().flatten().flatten();
    let zone = |entry: std::fs::DirEntry| {
        let milli = first_number(&entry.path().join("temp"))?;
        let kind = text(&entry.path().join("type"))?;
        Some((format!("{kind}/{}", entry.file_name().to_string_lossy()), milli / 1000.0))
    };
    zones.filter_map(zone).collect()
}

/// What drivers of the kernel tell of their GPUs (amdgpu, i915, xe, nouveau).
fn sysfs_gpus(found: &mut BTreeMap<String, f64>) {
    let cards = std::fs::read_dir("/sys/class/drm").into_iter().flatten().flatten();
    for card in cards {
        let name = card.file_name().to_string_lossy().into_owned();
        if !name.starts_with("card") || name.contains('-') {
            continue;
        }
        if let Some(mhz) = first_number(&card.path().join("gt_act_freq_mhz")) {
            found.insert(format!("gpu_mhz/{name}"), mhz);
        }
        let sensors = std::fs::read_dir(card.path().join("device/hwmon"));
        for sensor in sensors.into_iter().flatten().flatten() {
            let files = [
                ("gpu_temperature_c", "temp1_input", 1e-3),
                ("gpu_mhz", "freq1_input", 1e-6),
                ("gpu_power_w", "power1_average", 1e-6),
            ];
            for (what, file, unit) in files {
                if let Some(value) = first_number(&sensor.path().join(file)) {
                    found.insert(format!("{what}/{name}"), value * unit);
                }
            }
        }
    }
}

/// What NVIDIA's own tool tells, where it is installed.
fn nvidia(found: &mut BTreeMap<String, f64>) {
    let query = "--query-gpu=index,clocks.sm,temperature.gpu,power.draw";
    let mut command = std::process::Command::new("nvidia-smi");
    let Ok(output) = command.args([query, "--format=csv,noheader,nounits"]).output() else {
        return;
    };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut cells = line.split(',').map(str::trim);
        let Some(index) = cells.next() else { continue };
        for what in ["gpu_mhz", "gpu_temperature_c", "gpu_power_w"] {
            if let Some(value) = cells.next().and_then(|cell| cell.parse().ok()) {
                found.insert(format!("{what}/nvidia{index}"), value);
            }
        }
    }
}

fn first_number(path: &Path) -> Option<f64> {
    text(path)?.split_whitespace().next()?.parse().ok()
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}
