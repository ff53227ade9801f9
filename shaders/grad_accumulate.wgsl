// grad_accumulate: gradients, header | sum. sum = w g at micro-step 0, else sum + w g, where w is
// header.weight.

@group(0) @binding(0) var<storage, read> gradients: array<Element>;
@group(0) @binding(1) var<storage, read> header: StepHeader;
@group(0) @binding(2) var<storage, read_write> sum: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&sum) {
        let before = select(sum[i], Element(), header.micro_step == 0u);
        sum[i] = before + header.weight * gradients[i];
    }
}
