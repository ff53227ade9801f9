//! What a device can do at best, measured on it: memory by a streaming copy, arithmetic by multiply-adds
//! that never leave the registers. The best of several forms of each counts, since devices differ in
//! which form suits them.

use super::kernel::{Binding, DeviceCaps, Dispatch, Lowered, Shader, Store};
use super::lower::{WORKGROUP, fold};
use super::stopwatch::{Effort, Stopwatch};
use crate::batch::DType;
use crate::error::Result;
use crate::graph::{Role, Tensor};

/// Bytes of each side of the copy: beyond the caches of any device, within the binding of most.
const COPY_BYTES: usize = 256 << 20;
/// A device that cannot hold even this is measured with nothing.
const COPY_BYTES_MIN: usize = 1 << 20;
/// Elements of four floats that an invocation of the copy moves, in the forms that are tried.
const MOVES: [usize; 3] = [1, 8, 64];
/// Sums of an invocation that do not wait for one another, in the forms that are tried: a processor wants
/// as many as its registers hold, a GPU hides waiting by other invocations.
const CHAINS: [usize; 4] = [1, 2, 4, 8];
/// Multiply-adds of four numbers that follow one another in a round, as `multiply_add.wgsl` has it.
const STEPS: usize = 16;

/// Bytes a second that a streaming copy reads and writes.
///
/// # Errors
/// When the device does not even hold a small copy, or is lost.
pub fn copy_bytes_per_s(stopwatch: &mut Stopwatch, effort: Effort) -> Result<f64> {
    let limits = stopwatch.context().device.limits();
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) as usize;
    let mut bytes = COPY_BYTES.min(1 << most.ilog2());
    if stopwatch.context().caps().software {
        // Its memory is the processor's, and so are its caches.
        bytes = bytes.min(COPY_BYTES / 4);
    }
    let (x, rig) = loop {
        let x = tensor(bytes / 4, DType::F32);
        match stopwatch.rig(&[&x], &[&x]) {
            Ok(rig) => break (x, rig),
            Err(error) if bytes <= COPY_BYTES_MIN => return Err(error),
            Err(_) => bytes /= 2,
        }
    };
    stopwatch.fill(&rig, &[&x])?;
    let mut best: f64 = 0.0;
    for moves in MOVES {
        let lowered = stream_copy(bytes / 16 / moves, &stopwatch.context().caps());
        let trial = stopwatch.prepare(&rig, &lowered)?;
        let lap = stopwatch.time(&trial, effort)?;
        best = best.max(2.0 * bytes as f64 / lap.low_s);
    }
    Ok(best)
}

/// Operations a second of multiply-adds in registers, a multiply-add being two.
///
/// # Errors
/// When the driver refuses the shader, as one without that type does, or the device is lost.
pub fn multiply_add_flops_per_s(
    stopwatch: &mut Stopwatch,
    dtype: DType,
    effort: Effort,
) -> Result<f64> {
    let caps = stopwatch.context().caps();
    // A processor wants long loops, a GPU many invocations.
    let (groups, rounds) = if caps.software { (64, 256) } else { (8192, 64) };
    let invocations = groups * WORKGROUP as usize;
    let (x, y) = (tensor(2, DType::F32), tensor(invocations, DType::F32));
    let rig = stopwatch.rig(&[&x], &[&y])?;
    // So that sums neither overflow nor become so small that they are slow.
    stopwatch.load(&rig, Binding::Input(0), bytemuck::bytes_of(&[0.75f32, 0.5]))?;
    let mut best: f64 = 0.0;
    for chains in CHAINS {
        for fused in [true, false] {
            let lowered = multiply_add(dtype, chains, fused, [groups, rounds], &caps);
            let trial = stopwatch.prepare(&rig, &lowered)?;
            let lap = stopwatch.time(&trial, effort)?;
            let flops = 2 * 4 * chains * STEPS * rounds * invocations;
            best = best.max(flops as f64 / lap.low_s);
        }
    }
    Ok(best)
}

fn tensor(len: usize, dtype: DType) -> Tensor {
    Tensor { name: "ceiling".into(), shape: vec![len], dtype, role: Role::Activation }
}

macro_rules! bench_shader {
    ($name:literal) => {
        Shader::new(
            $name,
            vec![
                include_str!("../../shaders/shared/dispatch.wgsl"),
                include_str!(concat!("../../shaders/bench/", $name, ".wgsl")),
            ],
        )
    };
}

fn stream_copy(invocations: usize, caps: &DeviceCaps) -> Lowered {
    let dispatch = Dispatch {
        shader: bench_shader!("stream_copy"),
        constants: vec![],
        bindings: vec![Binding::Input(0), Binding::Output(0)],
        workgroups: fold(invocations.div_ceil(WORKGROUP as usize), caps),
        guarded: true,
    };
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}

fn multiply_add(
    dtype: DType,
    chains: usize,
    fused: bool,
    [groups, rounds]: [usize; 2],
    caps: &DeviceCaps,
) -> Lowered {
    let shader = bench_shader!("multiply_add")
        .with_store("Number", Store::of(dtype, true))
        .with_const("CHAINS", chains as u32);
    let dispatch = Dispatch {
        shader,
        constants: vec![("ROUNDS", rounds as f64), ("FUSED", f64::from(u8::from(fused)))],
        bindings: vec![Binding::Input(0), Binding::Output(0)],
        workgroups: fold(groups, caps),
        guarded: true,
    };
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}
