// attention_mean: dy[n, T, d], y[n, T, d] | mean[n, heads, T]. The sum of each query's weights times their
// gradients, which is that of y * dy: what the gradient of softmax takes off.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> y: array<StoreY>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= PAIRS * T {
        return;
    }
    let at = token_at(i / T, i % T);
    var sum = 0.0;
    for (var k = 0u; k < HEAD; k++) {
        sum += f32(dy[at + k]) * f32(y[at + k]);
    }
    mean[i] = sum;
}
