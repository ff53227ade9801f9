use inflight::batch::*;
use inflight::executor::{Executor, Wants};
use inflight::graph::Arena;
use inflight::graph::plan::*;
use inflight::nn::losses::Loss;
use inflight::train::compile::{Blueprint, Training, compile};
use inflight::{gpu, nn};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn fill(e: &mut dyn Executor, p: &Program) -> Slot {
    for v in &p.params {
        e.load(Arena::Params, v.offset, &nn::init::initial_values(v, 1)).unwrap();
    }
    let mut slot = e.take_slots().unwrap().remove(0);
    for (i, (mut x, mut t)) in slot.samples(&p.slot).into_iter().enumerate() {
        let b: Vec<u8> = (0..x.len()).map(|k| ((k * 31 + i * 17) % 251) as u8).collect();
        x.copy_from_slice(&b);
        t.copy_from_slice(&((i % 10) as u32).to_le_bytes());
    }
    slot.write_header(&StepHeader {
        count: p.slot.batch_size as u32,
        lr: 1e-3,
        weight: 1.0,
        ..Default::default()
    });
    slot
}
fn time(e: &mut dyn Executor, mut slot: Slot, n: usize) -> (f64, f64) {
    let mut best = f64::MAX;
    let mut first = 0.0;
    let mut busy = f64::MAX;
    for k in 0..n {
        let t = Instant::now();
        e.submit(Pass::Train, slot, Wants::default()).unwrap();
        let d = e.collect(Duration::from_secs(100)).unwrap().unwrap();
        slot = d.slot;
        let s = t.elapsed().as_secs_f64();
        if k == 0 {
            first = s
        } else {
            best = best.min(s);
            busy = busy.min(d.device_busy.map_or(0.0, |b| b.as_secs_f64()));
        }
    }
    println!("   busy {:.3} ms", busy * 1e3);
    (first, best)
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let spec = SampleSpec {
        input_shape: vec![1, 28, 28],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 10 },
    };
    let model = nn::models::by_name(&args[1], &spec).unwrap();
    let loss = Loss::for_target(&spec);
    let rule = nn::optimizers::OptimizerConfig::by_name(&args[2]).unwrap().rule();
    let p = compile(&Blueprint {
        model: &model,
        spec: &spec,
        batch_size: 128,
        mean: &[],
        std: &[],
        loss,
        training: Some(Training { rule, clip_norm: None, accumulate: 1 }),
    })
    .unwrap();
    let ctx = gpu::Context::open("llvmpipe").unwrap().unwrap();
    let p = Arc::new(p);
    let t = Instant::now();
    let mut e = gpu::Executor::new(ctx.clone(), p.clone(), 1).unwrap();
    println!("open {:?} new {:?} {:?}", ctx, t.elapsed(), e.device());
    let s = fill(&mut e, &p);
    let (first, best) = time(&mut e, s, 8);
    println!("whole step: first {:.1} ms, best {:.2} ms", first * 1e3, best * 1e3);
    if args.len() > 3 {
        return;
    }
    let plan = &p.plans[&Pass::Train];
    let mut sum = 0.0;
    for node in &plan.nodes {
        let mut q = (*p).clone();
        q.plans.get_mut(&Pass::Train).unwrap().nodes = vec![node.clone()];
        q.plans.remove(&Pass::Eval);
        let t = Instant::now();
        let mut e = gpu::Executor::new(ctx.clone(), Arc::new(q), 1).unwrap();
        let c = t.elapsed().as_secs_f64();
        let s = fill(&mut e, &p);
        let (first, best) = time(&mut e, s, 6);
        sum += best;
        let shapes: Vec<_> = node
            .inputs
            .iter()
            .chain(&node.outputs)
            .map(|&x| plan.tensor(x).shape.clone())
            .collect();
        println!(
            "{:24} {:12} new {:.1} first {:.1} best {:.2} ms {:?}",
            node.op.name(),
            node.scope,
            c * 1e3,
            first * 1e3,
            best * 1e3,
            shapes
        );
    }
    println!("sum {:.1} ms", sum * 1e3);
}
