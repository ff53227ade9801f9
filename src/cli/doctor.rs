//! `inflight doctor`: whether this machine is fit to train on, and what to do where it is not.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use inflight::gpu::{self, AdapterSummary};
use inflight::nn::models;
use inflight::report::memory::machine_memory_bytes;
use inflight::source::fetch::default_cache_dir;
use inflight::source::{Source, Synthetic};
use inflight::{Error, ErrorKind, Result, RunConfig, Stage, Trainer};
use serde::Serialize;

use super::print;

/// Check this machine: device, driver, limits, disk, memory, and say what to fix
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0: fit, perhaps with advice · 4: something must be fixed first

Examples:
  inflight doctor                     is all well here?
  inflight doctor --device gpu:0      and with this device?
  inflight doctor --data /mnt/photos  how fast is the disk that the data lie on?")]
pub struct Args {
    /// auto, cpu, gpu, gpu:K, or a part of an adapter's name (see `inflight devices`)
    #[arg(long, short, value_name = "D", default_value = "auto")]
    device: String,
    /// A folder on the disk that data sets are read from
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
    /// Print a line of JSON for each finding to stdout
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Good,
    Advice,
    Fault,
}

/// What was found about one thing.
#[derive(Debug, Serialize)]
struct Finding {
    event: &'static str,
    /// What was looked at.
    about: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to do, where there is something to do.
    fix: Option<String>,
}

impl Finding {
    fn good(about: &'static str, found: impl Into<String>) -> Self {
        Self { event: "finding", about, level: Level::Good, found: found.into(), fix: None }
    }

    fn advice(about: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Advice, fix: Some(fix.into()), ..Self::good(about, found) }
    }

    fn fault(about: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Fault, fix: Some(fix.into()), ..Self::good(about, found) }
    }
}

/// Bytes of memory that are left below which a run is likely to fail.
const MEMORY_MIN: u64 = 512 << 20;
/// And below which large ones are.
const MEMORY_FEW: u64 = 2 << 30;
/// Bytes free on a disk below which checkpoints may not fit.
const DISK_MIN: u64 = 256 << 20;
const DISK_FEW: u64 = 5 << 30;
/// Open files that readers, workers and checkpoints take at most.
const FILES_MIN: u64 = 256;
/// Bytes of the file that a disk is timed with.
const TRIAL_BYTES: usize = 32 << 20;

/// Looks at everything.
pub fn run(args: Args) -> Result<()> {
    let mut faults = 0;
    let mut tell = |finding: Finding| -> Result<()> {
        faults += usize::from(finding.level == Level::Fault);
        if args.json {
            return print::json(&finding);
        }
        show(&finding);
        Ok(())
    };
    let adapters = gpu::adapters();
    tell(adapters_found(&adapters))?;
    tell(device_works(&args.device))?;
    if let Some(finding) = limits(&args.device, &adapters) {
        tell(finding)?;
    }
    tell(cores())?;
    tell(memory())?;
    tell(files())?;
    for (about, folder) in folders(&args.data) {
        for finding in disk(about, &folder) {
            tell(finding)?;
        }
    }
    match faults {
        0 => {
            print::note("this machine is fit to train on");
            Ok(())
        }
        n => {
            let message = format!("found {n} of the above that must be fixed, expected none");
            Err(Error::new(Stage::Device, ErrorKind::Device, "doctor", message))
        }
    }
}

fn show(finding: &Finding) {
    let mark = match finding.level {
        Level::Good => "ok  ",
        Level::Advice => "note",
        Level::Fault => "FIX ",
    };
    print::data(format!("{mark} {:<12} {}", finding.about, finding.found));
    if let Some(fix) = &finding.fix {
        print::data(format!("     {:<12} -> {fix}", ""));
    }
}

fn adapters_found(adapters: &[AdapterSummary]) -> Finding {
    let hardware = adapters.iter().filter(|adapter| adapter.kind != "software").count();
    let names: Vec<&str> = adapters.iter().map(|adapter| adapter.name.as_str()).collect();
    let names = names.join(", ");
    match (adapters.len(), hardware) {
        (0, _) => Finding::advice(
            "adapters",
            "none: training runs on the processor",
            "with a GPU: install its Vulkan driver (Linux: mesa-vulkan-drivers, or NVIDIA's)",
        ),
        (_, 0) => Finding::advice(
            "adapters",
            format!("software only: {names}"),
            "with a GPU: install its Vulkan driver, and see that /dev/dri can be read",
        ),
        _ => Finding::good("adapters", names),
    }
}

/// Trains a little on the device, and holds the losses against those of the twins.
fn device_works(selector: &str) -> Finding {
    let fix = "another --device of those that `inflight devices` lists; a newer driver";
    let (name, found) = match losses(selector) {
        Ok(pair) => pair,
        Err(error) => return Finding::fault("device", error.to_string(), fix),
    };
    let twins = match losses("cpu") {
        Ok((_, expected)) => expected,
        Err(error) => return Finding::fault("device", error.to_string(), "reporting this"),
    };
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() / b.abs().max(1e-9);
    let most = found.iter().zip(&twins).map(apart).fold(0.0, f64::max);
    // NaN is never below.
    match most < 1e-3 {
        true => Finding::good("device", format!("{name}: trains, and as the processor does")),
        false => Finding::fault(
            "device",
            format!("{name}: losses are {found:?} where {twins:?} are expected"),
            fix,
        ),
    }
}

/// The name of a device, and the losses of a few steps on it.
fn losses(selector: &str) -> Result<(String, Vec<f64>)> {
    let target = inflight::batch::TargetSpec::Class { classes: 10 };
    let spec = inflight::batch::SampleSpec {
        input_shape: vec![1, 28, 28],
        input_dtype: inflight::batch::DType::U8,
        target,
    };
    let source = std::sync::Arc::new(Synthetic::new(256, spec, 1)?);
    let config = RunConfig {
        device: selector.into(),
        steps: Some(4),
        batch_size: 64,
        lr: Some(1e-4),
        tune: inflight::executor::Tune::Off,
        ..Default::default()
    };
    let model = models::by_name("cnn", source.spec())?;
    let trainer = Trainer::builder(model, source).config(config).start()?;
    let steps: Vec<_> = (0..4).map(|_| trainer.step()).collect();
    let mut losses = Vec::new();
    for step in steps {
        losses.extend(pollster::block_on(step)?.map(|report| report.loss));
    }
    Ok((trainer.device().name.clone(), losses))
}

/// Limits that keep usual models off an adapter.
fn limits(selector: &str, adapters: &[AdapterSummary]) -> Option<Finding> {
    let name = super::plan::device_name(selector).ok()?;
    let adapter = adapters.iter().find(|adapter| name.contains(&adapter.name))?;
    let found = format!(
        "buffers up to {}, {} bindings, {} of workgroup memory",
        print::bytes(adapter.max_binding_bytes),
        adapter.max_bindings,
        print::bytes(adapter.workgroup_bytes.into()),
    );
    let fix = "a newer driver; smaller models and batches work";
    Some(match adapter.max_binding_bytes < (128 << 20) || adapter.workgroup_bytes < (16 << 10) {
        true => Finding::advice("limits", found, fix),
        false => Finding::good("limits", found),
    })
}

fn cores() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{cores} for preparing batches");
    match cores {
        1 => Finding::advice("cores", found, "more of them, for data that must be decoded"),
        _ => Finding::good("cores", found),
    }
}

fn memory() -> Finding {
    let Some((free, all)) = memory_bytes() else {
        return Finding::good("memory", "the system does not tell");
    };
    let found = format!("{} free of {}", print::bytes(free), print::bytes(all));
    let fix = "ending other programs; --memory-budget 256MiB and a smaller --batch-size";
    match free {
        _ if free < MEMORY_MIN => Finding::fault("memory", found, fix),
        _ if free < MEMORY_FEW => Finding::advice("memory", found, fix),
        _ => Finding::good("memory", found),
    }
}

/// Bytes that can be had, and all there are; the limit of a container counts.
fn memory_bytes() -> Option<(u64, u64)> {
    let (mut free, mut all) =
        (machine_memory_bytes("MemAvailable:")?, machine_memory_bytes("MemTotal:")?);
    let number = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    if let Some(most) = number("/sys/fs/cgroup/memory.max") {
        let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
        (free, all) = (free.min(most.saturating_sub(used)), all.min(most));
    }
    Some((free, all))
}

#[cfg(unix)]
fn files() -> Finding {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for the one `rlimit` that is written into it.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if status != 0 {
        return Finding::good("open files", "the system does not tell");
    }
    let found = format!("up to {} at a time", limit.rlim_cur);
    match limit.rlim_cur < FILES_MIN {
        true => Finding::fault("open files", found, "ulimit -n 4096"),
        false => Finding::good("open files", found),
    }
}

#[cfg(not(unix))]
fn files() -> Finding {
    Finding::good("open files", "no limit is known")
}

/// The folders that are written to or read from.
fn folders(data: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut folders = vec![("data", data.to_path_buf()), ("runs", PathBuf::from("."))];
    if let Ok(cache) = default_cache_dir() {
        folders.push(("cache", cache));
    }
    folders
}

/// Whether a folder can be written to, what is free there, and how fast it is.
fn disk(about: &'static str, folder: &Path) -> Vec<Finding> {
    // What is not there yet will be made in the nearest folder that is.
    let there = folder.ancestors().find(|path| path.exists() || path.as_os_str().is_empty());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = folder.display();
    if about == "data" && !folder.exists() {
        return vec![Finding::fault(about, format!("{shown} is not there"), "--data DIR")];
    }
    let mut findings = Vec::new();
    match speed(there) {
        Ok((write, read)) => {
            let found = format!(
                "{shown}: writes {}, reads {}{}",
                print::amount(write, "B/s"),
                print::amount(read, "B/s"),
                class(write),
            );
            findings.push(Finding::good(about, found));
        }
        Err(error) if about == "data" => {
            findings.push(Finding::good(about, format!("{shown}: can be read only ({error})")));
        }
        Err(error) => findings.push(Finding::fault(
            about,
            format!("{shown} cannot be written to: {error}"),
            if about == "cache" { "INFLIGHT_DATA=DIR" } else { "another folder, or --out DIR" },
        )),
    }
    if let Some(free) = free_bytes(there).filter(|_| about != "data") {
        let found = format!("{shown}: {} free", print::bytes(free));
        let fix = "room for checkpoints and data sets, or --keep 1";
        findings.push(match free {
            _ if free < DISK_MIN => Finding::fault(about, found, fix),
            _ if free < DISK_FEW => Finding::advice(about, found, fix),
            _ => Finding::good(about, found),
        });
    }
    findings
}

/// What kind of disk writes so many bytes a second to stay.
fn class(write: f64) -> &'static str {
    match write {
        w if w >= 800e6 => " (as an NVMe disk)",
        w if w >= 150e6 => " (as a SATA SSD)",
        w if w >= 40e6 => " (as a hard disk or a network)",
        _ => " (slow)",
    }
}

/// Bytes a second that a new file is written with, to the disk, and read with, as far as the system lets us past its memory.
fn speed(folder: &Path) -> std::io::Result<(f64, f64)> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    // Not zeros, which some file systems do not store.
    let block: Vec<u8> =
        (0..TRIAL_BYTES).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    let began = Instant::now();
    file.write_all(&block)?;
    file.as_file().sync_all()?;
    let write = TRIAL_BYTES as f64 / began.elapsed().as_secs_f64();
    forget(file.as_file());
    let mut again = file.reopen()?;
    let mut buffer = vec![0; 1 << 20];
    let began = Instant::now();
    while again.read(&mut buffer)? > 0 {}
    Ok((write, TRIAL_BYTES as f64 / began.elapsed().as_secs_f64()))
}

#[cfg(target_os = "linux")]
fn forget(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; advice changes no contents. If it is not taken, reads come from memory.
    let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &std::fs::File) {}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in a zero byte, and the pointer is valid for the one `statvfs` that is written into it.
    let status = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    // SAFETY: zeroed integers are a valid `statvfs`, and on success all of it was written.
    let stat = (status == 0).then(|| unsafe { stat.assume_init() })?;
    Some(stat.f_bavail as u64 * stat.f_frsize as u64)
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}
