// gelu_grad: dy, x | dx. dx = dy (Φ(x) + x φ(x)).

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&dx) {
        dx[i] = dy[i] * (normal_cdf(x[i]) + x[i] * normal_density(x[i]));
    }
}
