// What changes from step to step: mirrors `StepHeader` in src/batch.rs, at the head of the slot.

struct StepHeader {
    count: u32,
    step: u32,
    seed_low: u32,
    seed_high: u32,
    lr: f32,
    micro_step: u32,
    weight: f32,
    pad: u32,
}
