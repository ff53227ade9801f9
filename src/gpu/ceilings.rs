//! What a device can do at best, measured on it: memory by a streaming copy, arithmetic by multiply-adds
//! that never leave the registers. The best of several forms of each counts, since devices differ in
//! which form suits them.

use super::kernel::{Binding, DeviceCaps, Dispatch, Lowered, Shader, Store};
use super::lower::{WORKGROUP, fold};
use super::stopwatch::{Effort, Rig, Stopwatch, Trial};
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
const CHAINS: [usize; 5] = [1, 2, 3, 4, 8];
/// Multiply-adds of four numbers that follow one another in a round, as `multiply_add.wgsl` has it.
const STEPS: usize = 16;

/// Invocations of a workgroup of `matrix_multiply.wgsl`, its subgroups, and the side of their squares.
const UNIT_LANES: usize = 128;
const UNIT_TEAMS: usize = 4;
const UNIT_SIDE: usize = 16;

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
    let caps = stopwatch.context().caps();
    let forms = MOVES.map(|moves| (stream_copy(bytes / 16 / moves, &caps), 2 * bytes));
    best_per_s(stopwatch, &rig, &forms, effort)
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
    let form = |(chains, fused)| {
        let flops = 2 * 4 * chains * STEPS * rounds * invocations;
        (multiply_add(dtype, chains, fused, [groups, rounds], &caps), flops)
    };
    let forms = CHAINS.into_iter().flat_map(|chains| [(chains, true), (chains, false)]);
    let forms: Vec<(Lowered, usize)> = forms.map(form).collect();
    best_per_s(stopwatch, &rig, &forms, effort)
}

/// Operations a second of products of f16 squares added to f32 ones, by the matrix units.
///
/// # Errors
/// When the adapter has none that kernels use, or the device is lost.
pub fn matrix_flops_per_s(stopwatch: &mut Stopwatch, effort: Effort) -> Result<f64> {
    let (groups, rounds) = (2048, 1024);
    let (x, y) = (tensor(2, DType::F32), tensor(4 * UNIT_LANES * groups, DType::F32));
    let rig = stopwatch.rig(&[&x], &[&y])?;
    stopwatch.load(&rig, Binding::Input(0), bytemuck::bytes_of(&[0.75f32, 0.5]))?;
    let form = |chains| {
        let flops = 2 * UNIT_SIDE.pow(3) * UNIT_TEAMS * chains * rounds * groups;
        (matrix_multiply(chains, [groups, rounds]), flops)
    };
    best_per_s(stopwatch, &rig, &CHAINS.map(form), effort)
}

/// The most that any form of a measurement does in a second: each is tried once, the best one then timed.
/// Its shortest time counts, since other work on the machine only ever makes it longer.
fn best_per_s(
    stopwatch: &mut Stopwatch,
    rig: &Rig,
    forms: &[(Lowered, usize)],
    effort: Effort,
) -> Result<f64> {
    let mut best: Option<(f64, Trial, f64)> = None;
    for (lowered, amount) in forms {
        let (trial, amount) = (stopwatch.prepare(rig, lowered)?, *amount as f64);
        stopwatch.run(&trial, 1)?;
        let per_s = amount / stopwatch.run(&trial, 1)?;
        if best.as_ref().is_none_or(|(most, ..)| per_s > *most) {
            best = Some((per_s, trial, amount));
        }
    }
    let Some((once, trial, amount)) = best else { return Ok(0.0) };
    let lap = stopwatch.time(&trial, effort)?;
    Ok(once.max(amount / lap.low_s))
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

fn matrix_multiply(chains: usize, [groups, rounds]: [usize; 2]) -> Lowered {
    let shader = Shader::new(
        "matrix_multiply",
        vec![include_str!("../../shaders/bench/matrix_multiply.wgsl")],
    );
    let dispatch = Dispatch {
        shader: shader
            .with_extension("f16")
            .with_extension("wgpu_cooperative_matrix")
            .with_const("CHAINS", chains as u32),
        constants: vec![("ROUNDS", rounds as f64)],
        bindings: vec![Binding::Input(0), Binding::Output(0)],
        workgroups: [groups as u32, 1, 1],
        guarded: true,
    };
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}

#[cfg(test)]
mod tests {
    use wgpu::naga;

    use super::*;
    use crate::gpu::Context;
    use crate::testing::assert_close;

    const CAPS: DeviceCaps = DeviceCaps {
        max_workgroups: 65535,
        workgroup_bytes: 32768,
        max_invocations: 256,
        software: false,
        subgroup_size: 32,
        cooperative: true,
    };

    /// Takes a shader through all that happens to it before the driver sees it.
    fn expect_valid(dispatch: &Dispatch) {
        use naga::valid::{Capabilities, ValidationFlags, Validator};
        let source = dispatch.shader.source();
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
        let constants = dispatch.constants.iter().map(|&(name, x)| (name.into(), x)).collect();
        let entry = Some((naga::ShaderStage::Compute, "main"));
        naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
            .unwrap_or_else(|error| panic!("{error} in {source}"));
    }

    #[test]
    fn shaders_are_valid_also_those_that_this_machine_cannot_run() {
        let mut all = vec![stream_copy(1000, &CAPS)];
        for chains in CHAINS {
            all.push(multiply_add(DType::F16, chains, true, [8, 4], &CAPS));
            all.push(matrix_multiply(chains, [8, 4]));
        }
        all.iter().for_each(|lowered| expect_valid(&lowered.dispatches[0]));
    }

    #[test]
    fn multiply_adds_are_all_done() {
        let context = Context::open("llvmpipe").unwrap_or_else(|error| {
            let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required, "REQUIRE_GPU=1 and {error}");
            None
        });
        let Some(context) = context else { return eprintln!("SKIPPED: no adapter to measure") };
        let mut stopwatch = Stopwatch::new(context).expect("a few bytes");
        let invocations = 2 * WORKGROUP as usize;
        let (x, y) = (tensor(2, DType::F32), tensor(invocations, DType::F32));
        let rig = stopwatch.rig(&[&x], &[&y]).expect("small");
        let [factor, term] = [0.999f32, 0.5];
        let factors = [factor, term];
        stopwatch.load(&rig, Binding::Input(0), bytemuck::bytes_of(&factors)).expect("small");
        let (chains, rounds) = (2, 3);
        let expected: Vec<f64> = (0..invocations)
            .map(|i| {
                let sum = |chain: usize, k: usize| {
                    let (factor, term) =
                        if k.is_multiple_of(2) { (factor, term) } else { (term, factor) };
                    let term = f64::from(term) * (i % 7) as f64;
                    let step = |sum: f64, _| sum * f64::from(factor) + term;
                    (0..STEPS * rounds).fold(term + 0.25 * k as f64 + chain as f64, step)
                };
                (0..chains)
                    .flat_map(|chain| (0..4).map(move |k| (chain, k)))
                    .map(|(c, k)| sum(c, k))
                    .sum()
            })
            .collect();
        for fused in [true, false] {
            let caps = stopwatch.context().caps();
            let lowered = multiply_add(DType::F32, chains, fused, [2, rounds], &caps);
            let trial = stopwatch.prepare(&rig, &lowered).expect("the driver takes it");
            assert!(stopwatch.run(&trial, 1).expect("runs") > 0.0);
            let found = stopwatch.read(&rig, 0).expect("reads");
            assert_close(&bytemuck::pod_collect_to_vec::<u8, f32>(&found), &expected, 1e-3, 1e-5);
        }
    }
}
