//! `inflight devices`: what there is to compute on.

use inflight::Result;
use inflight::gpu::{self, AdapterSummary};
use serde::Serialize;

use super::{plan, print};

/// List the devices of this machine
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a line of JSON for each device to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    selector: String,
    #[serde(flatten)]
    device: Device<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Device<'a> {
    Twins { name: &'static str, backend: &'static str, kind: &'static str, threads: usize },
    Adapter(&'a AdapterSummary),
}

/// Lists the devices.
pub fn run(args: Args) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let adapters = gpu::adapters();
    if args.json {
        let twins = Device::Twins { name: "CPU twins", backend: "cpu", kind: "twins", threads };
        print::json(&Event { event: "device", selector: "cpu".into(), device: twins })?;
        for adapter in &adapters {
            let selector = format!("gpu:{}", adapter.index);
            print::json(&Event { event: "device", selector, device: Device::Adapter(adapter) })?;
        }
        return Ok(());
    }
    print::data(format!("cpu: CPU twins, {threads} threads"));
    adapters.iter().for_each(describe);
    if adapters.is_empty() {
        print::note(
            "no adapter found: a Vulkan driver is missing (Mesa's llvmpipe is one in software)",
        );
    }
    print::note(format!("--device auto takes: {}", plan::device_name("auto")?));
    Ok(())
}

fn describe(adapter: &AdapterSummary) {
    let memory = adapter.memory_bytes.map(|bytes| format!(", {} of memory", print::bytes(bytes)));
    print::data(format!(
        "gpu:{}: {} ({}, {}{})",
        adapter.index,
        adapter.name,
        adapter.kind,
        adapter.backend,
        memory.unwrap_or_default()
    ));
    print::data(format!("    driver: {}", adapter.driver));
    let [least, most] = adapter.subgroup_sizes;
    print::data(format!(
        "    limits: buffer {}, binding {}, {} bindings, workgroup {} and {} invocations, subgroup {least} to {most}",
        print::bytes(adapter.max_buffer_bytes),
        print::bytes(adapter.max_binding_bytes),
        adapter.max_bindings,
        print::bytes(adapter.workgroup_bytes.into()),
        adapter.max_invocations,
    ));
    print::data(format!("    features used: {}", adapter.features.join(", ")));
}
