//! What the operating system knows: resident memory and processor time of this process, memory of the machine.

/// Highest resident memory of the process so far, in bytes, where the system tells it.
///
/// On Linux from `VmHWM`: `ru_maxrss` there survives `exec`, so that a small program started by a large
/// one would report the large one's peak.
#[cfg(target_os = "linux")]
pub fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// Highest resident memory of the process so far, in bytes, where the system tells it.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn peak_memory_bytes() -> Option<u64> {
    // Apple counts bytes, the other systems count KiB.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    usage().and_then(|usage| u64::try_from(usage.ru_maxrss).ok()).map(|max| max * unit)
}

/// Highest resident memory of the process so far, in bytes, where the system tells it.
#[cfg(not(unix))]
pub fn peak_memory_bytes() -> Option<u64> {
    None
}

/// Resident memory of the process now, in bytes, where the system tells it.
pub fn current_memory_bytes() -> Option<u64> {
    if cfg!(target_os = "linux") { status_bytes("VmRSS:") } else { None }
}

/// Processor time of all threads of the process so far, in seconds, where the system tells it.
#[cfg(unix)]
pub fn processor_time_s() -> Option<f64> {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    usage().map(|usage| seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// Processor time of all threads of the process so far, in seconds, where the system tells it.
#[cfg(not(unix))]
pub fn processor_time_s() -> Option<f64> {
    None
}

/// A line of `/proc/meminfo` about the machine, as `MemTotal:`, in bytes; `None` where the system does not tell it.
pub fn machine_memory_bytes(key: &str) -> Option<u64> {
    kib_line("/proc/meminfo", key)
}

fn status_bytes(key: &str) -> Option<u64> {
    kib_line("/proc/self/status", key)
}

/// A line of a file that counts KiB, in bytes; `None` where there is no such file.
fn kib_line(path: &str, key: &str) -> Option<u64> {
    let lines = std::fs::read_to_string(path).ok()?;
    let line = lines.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(unix)]
fn usage() -> Option<libc::rusage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `getrusage` writes a whole `rusage` into the pointer, which is valid for it, or fails.
    let status = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: zeroed integers are a valid `rusage`, and on success all of it was written.
    (status == 0).then(|| unsafe { usage.assume_init() })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_touched_is_counted() {
        let before = current_memory_bytes().expect("Linux tells it");
        let block = vec![1u8; 64 << 20];
        let during = current_memory_bytes().expect("Linux tells it");
        assert!(std::hint::black_box(&block).iter().all(|&byte| byte == 1));
        assert!(during > before + (32 << 20), "{before} {during}");
        let peak = peak_memory_bytes().expect("Linux tells it");
        assert!(peak >= during && peak < 1 << 40, "{peak}");
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = processor_time_s().expect("Linux tells it");
        let mut x = 1u64;
        while processor_time_s().expect("Linux tells it") < before + 0.01 {
            (0..100_000).for_each(|i| x = std::hint::black_box(x.wrapping_mul(31) ^ i));
        }
    }
}
