//! The context: an adapter chosen by the user's selector and the device opened on it.
//!
//! wgpu reports what goes wrong on a device through callbacks, on whichever thread notices. They leave
//! the first fault in the context, and every call of the executor that follows returns it as an error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::adapters::{self, kind_name};
use super::kernel::DeviceCaps;
use super::memory_size::device_memory_bytes;
use super::readback::{Arrivals, Arrived};
use crate::error::{Error, Result};
use crate::executor::DeviceInfo;

/// Features that are used where an adapter has them; none is required. Nothing else is asked for: what
/// no kernel uses can only bring a driver's bugs.
pub(super) const USED: wgpu::Features = wgpu::Features::SUBGROUP
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::PIPELINE_CACHE)
    .union(wgpu::Features::SHADER_F16);

/// What matrix units take, where an adapter has such as kernels use.
const COOPERATIVE: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

/// A pass that takes longer than this means that the device hangs: drivers reset one long before, and
/// the slowest step of any model that fits a software adapter takes a fraction of it.
pub(super) const HANG_TIMEOUT: Duration = Duration::from_secs(120);

/// An opened device.
#[derive(Debug)]
pub struct Context {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: wgpu::AdapterInfo,
    pub(super) open_s: f64,
    /// Device memory, where the backend tells.
    memory_bytes: Option<u64>,
    /// Whether lowerings choose what suits a software adapter.
    software: bool,
    half: bool,
    fault: Arc<Fault>,
}

impl Context {
    /// Opens the adapter that `selector` names: `auto` (a discrete GPU, else an integrated or virtual
    /// one, else `None`: the caller takes the CPU twins), `gpu` (the same, or an error), `gpu:K` (the
    /// adapter of that index in [`adapters`](adapters::adapters)), or any part of an adapter's name.
    /// Software adapters are taken only by name or index.
    ///
    /// # Errors
    /// When no adapter fits, naming those found, or when the driver refuses to open it.
    pub fn open(selector: &str) -> Result<Option<Arc<Self>>> {
        let start = Instant::now();
        let all = adapters::enumerate();
        let infos: Vec<wgpu::AdapterInfo> = all.iter().map(wgpu::Adapter::get_info).collect();
        let Some(chosen) = adapters::choose(selector, &infos)? else {
            return Ok(None);
        };
        Self::on(&all[chosen], start).map(|context| Some(Arc::new(context)))
    }

    fn on(adapter: &wgpu::Adapter, start: Instant) -> Result<Self> {
        let info = adapter.get_info();
        let (experimental_features, required_features) = match has_matrix_units(adapter) {
            true => {
                // SAFETY: of what is experimental only matrix units are asked for, and the one kernel
                // that uses them, dense_coop, keeps to what naga validates and the adapter reports.
                let enabled = unsafe { wgpu::ExperimentalFeatures::enabled() };
                (enabled, adapter.features() & (USED | COOPERATIVE))
            }
            false => (wgpu::ExperimentalFeatures::disabled(), adapter.features() & USED),
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("inflight"),
            required_features,
            experimental_features,
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|cause| {
                Error::device(&info.name, "the driver refuses to open this adapter")
                    .caused_by(cause)
                    .hint("--device cpu, or another of the adapters that `inflight devices` lists")
            })?;
        let fault = Arc::new(Fault::default());
        let lost = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            lost.set(format!("the device was lost ({reason:?}): {message}"));
        });
        let uncaptured = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error| {
            // Each cause has a line of its own in wgpu's words.
            let told = error.to_string();
            let told: Vec<&str> = told.split_whitespace().collect();
            uncaptured.set(format!("the device reports: {}", told.join(" ")));
        }));
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let open_s = start.elapsed().as_secs_f64();
        // A software adapter has the host's, and may tell of a part of it only.
        let memory_bytes = if software { None } else { device_memory_bytes(adapter) };
        let half = device.features().contains(wgpu::Features::SHADER_F16);
        Ok(Self { device, queue, info, open_s, memory_bytes, software, half, fault })
    }

    /// The same device, for which lowerings choose what suits a GPU in hardware, whatever it is: so a
    /// machine without one can test those variants.
    pub fn as_hardware(&self) -> Arc<Self> {
        Arc::new(Self { software: false, ..self.same() })
    }

    /// The same device as if its shaders had no 16-bit floats, for tests.
    pub fn without_half(&self) -> Arc<Self> {
        Arc::new(Self { half: false, ..self.same() })
    }

    /// The same device as if it had so much memory, for tests.
    pub fn with_memory(&self, bytes: u64) -> Arc<Self> {
        Arc::new(Self { memory_bytes: Some(bytes), ..self.same() })
    }

    fn same(&self) -> Self {
        Self {
            device: self.device.clone(),
            queue: self.queue.clone(),
            info: self.info.clone(),
            fault: Arc::clone(&self.fault),
            ..*self
        }
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// What lowerings may ask of the device.
    pub fn caps(&self) -> DeviceCaps {
        let limits = self.device.limits();
        let (least, most) = (self.info.subgroup_min_size, self.info.subgroup_max_size);
        let fixed = least == most && self.device.features().contains(wgpu::Features::SUBGROUP);
        DeviceCaps {
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            software: self.software,
            subgroup_size: if fixed { least } else { 0 },
            cooperative: self.device.features().contains(COOPERATIVE),
        }
    }

    /// Bytes of the device's own memory, where it has some and the backend tells.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    /// Whether the device can tell the time.
    pub(super) fn has_timestamps(&self) -> bool {
        self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Whether shaders can store 16-bit floats.
    pub fn has_half(&self) -> bool {
        self.half
    }

    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub fn kind(&self) -> &'static str {
        kind_name(self.info.device_type)
    }

    /// The device's driver and its version.
    pub fn driver(&self) -> String {
        [self.info.driver.as_str(), self.info.driver_info.as_str()].join(" ").trim().to_string()
    }

    /// The device, for people and tools; nothing of a program is in it yet.
    pub fn device_info(&self) -> DeviceInfo {
        DeviceInfo {
            name: self.name().to_string(),
            backend: self.info.backend.to_string(),
            kind: self.kind().to_string(),
            driver: self.driver(),
            open_s: self.open_s,
            half: self.half,
            ..DeviceInfo::default()
        }
    }

    /// Returns what went wrong on the device since it was opened, if anything did.
    ///
    /// # Errors
    /// The first fault; the device cannot be trusted after it.
    pub fn check(&self) -> Result<()> {
        match self.fault.get() {
            None => Ok(()),
            Some(fault) => Err(self.broken(fault)),
        }
    }

    /// Destroys the device: everything on it is lost, and every later call returns an error.
    pub fn destroy(&self) {
        // wgpu would tell of it only when it is next waited for.
        self.fault.set("the device was lost: it was destroyed".into());
        self.device.destroy();
    }

    /// An error of this device that makes it unusable: the recorded fault if there is one, since that
    /// is the cause, else `symptom`.
    pub(super) fn broken(&self, symptom: impl std::fmt::Display) -> Error {
        let message = self.fault.get().unwrap_or_else(|| symptom.to_string());
        Error::device(&self.info.name, message)
            .hint("running again with --resume, with a smaller --batch-size, or with --device cpu")
    }

    /// The error of a device that did not answer for so long. It is never closed from now on.
    pub(super) fn hangs(self: &Arc<Self>, waited: Duration) -> Error {
        // Closing a queue waits without a bound for all that it was given, so that whoever let go of the last reference
        // would wait for ever, after having told of the hang. One reference that nobody lets go of prevents it.
        std::mem::forget(Arc::clone(self));
        let waited_s = waited.as_secs();
        let symptom = format!("the device hangs: a pass did not end within {waited_s} s");
        // Nobody is to wait for it once more.
        self.fault.set(symptom.clone());
        self.broken(symptom)
    }

    /// Waits for a submission and for the mappings that came with it, at most `patience`.
    ///
    /// # Errors
    /// When the device is lost, or hangs.
    pub(super) fn finish(
        self: &Arc<Self>,
        submission: wgpu::SubmissionIndex,
        arrivals: &Arrivals,
        patience: Duration,
    ) -> Result<()> {
        let began = Instant::now();
        let submission_index = Some(submission);
        let wait = wgpu::PollType::Wait { submission_index, timeout: Some(patience) };
        self.poll(wait).map_err(|failure| match failure {
            PollFailure::Broken(error) => error,
            PollFailure::Timeout => self.hangs(patience),
        })?;
        // Another thread may have polled first, and be about to run our callbacks.
        while arrivals.state() == Arrived::NotYet {
            if began.elapsed() > patience {
                return Err(self.hangs(patience));
            }
            std::thread::yield_now();
        }
        self.check()?;
        match arrivals.state() {
            Arrived::Failed => Err(self.broken("results cannot be read back")),
            _ => Ok(()),
        }
    }

    /// Runs `make` and returns the error that it caused on the device, if any: out of memory, beyond a
    /// limit, or a shader that the driver does not take.
    pub(super) fn scoped<T>(&self, make: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        // Scopes belong to the thread and are popped in reverse order.
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let made = make();
        let memory = pollster::block_on(memory.pop());
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        let found = memory.or(validation).or(internal);
        found.map_or(Ok(made), Err)
    }

    /// Polls the device. Where wgpu would panic, because the device was lost while waiting, this
    /// returns an error.
    pub(super) fn poll(&self, how: wgpu::PollType) -> Result<(), PollFailure> {
        // Polling a device that is lost frees its buffers, also those that workers are writing into.
        self.check().map_err(PollFailure::Broken)?;
        // wgpu turns a lost device into a panic here, whatever handlers are set; nothing of ours is
        // on the stack inside, so nothing is left half done.
        let polled =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.device.poll(how)));
        match polled {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => Err(PollFailure::Timeout),
            Ok(Err(error)) => Err(PollFailure::Broken(self.broken(error))),
            Err(_) => {
                Err(PollFailure::Broken(self.broken("the device was lost while waiting for it")))
            }
        }
    }
}

/// Whether an adapter's subgroups multiply matrices of 16 by 16 f16 into f32.
fn has_matrix_units(adapter: &wgpu::Adapter) -> bool {
    use wgpu::CooperativeScalarType as Scalar;
    let found = adapter.cooperative_matrix_properties();
    let fits = |it: &wgpu::CooperativeMatrixProperties| {
        [it.m_size, it.n_size, it.k_size] == [16; 3]
            && (it.ab_type, it.cr_type) == (Scalar::F16, Scalar::F32)
    };
    adapter.features().contains(COOPERATIVE) && found.iter().any(fits)
}

/// Why waiting for the device ended without what was waited for.
#[derive(Debug)]
pub(super) enum PollFailure {
    /// The time was up.
    Timeout,
    /// The device is unusable.
    Broken(Error),
}

/// The first thing that went wrong on a device.
#[derive(Debug, Default)]
struct Fault(Mutex<Option<String>>);

impl Fault {
    fn set(&self, message: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of its own, since each test makes it unusable.
    fn context() -> Option<Arc<Context>> {
        Context::open("llvmpipe").unwrap_or_else(|error| {
            let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required, "REQUIRE_GPU=1 and {error}");
            eprintln!("SKIPPED: no adapter to open");
            None
        })
    }

    #[test]
    fn a_device_that_is_destroyed_is_lost_at_once_and_polled_no_more() {
        let Some(context) = context() else { return };
        context.check().expect("nothing has happened");
        context.destroy();
        let error = context.check().expect_err("before anybody waits for it");
        assert!(error.to_string().contains("the device was lost"), "{error}");
        let polled = context.poll(wgpu::PollType::Poll);
        assert!(matches!(polled, Err(PollFailure::Broken(_))), "{polled:?}");
    }

    #[test]
    fn a_device_that_hangs_is_told_of_and_never_closed() {
        let Some(context) = context() else { return };
        let held = Arc::strong_count(&context);
        let submission = context.queue.submit([]);
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let waiting = context.clone();
        std::thread::spawn(move || {
            let waited = waiting.finish(submission, &Arrivals::never(), Duration::from_millis(200));
            drop(waiting);
            let _ = sender.send(waited);
        });
        // Far longer than it takes, so that waiting for ever fails the test instead of stopping it.
        let waited = receiver.recv_timeout(Duration::from_secs(60)).expect("an end");
        let error = waited.expect_err("nothing arrives");
        assert!(error.to_string().contains("the device hangs"), "{error}");
        context.check().expect_err("what comes after does not wait as long again");
        assert_eq!(Arc::strong_count(&context), held + 1, "one reference is nobody's");
    }
}
