// grad_squares, first half: gradients | sums[STRIDE]. Each invocation sums the squares of every
// STRIDE-th gradient; `reduce` then brings the sums down to the partial sums of the operation.

override STRIDE: u32;

@group(0) @binding(0) var<storage, read> gradients: array<Element>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= STRIDE {
        return;
    }
    var sum = Element();
    for (var k = i; k < arrayLength(&gradients); k += STRIDE) {
        sum += gradients[k] * gradients[k];
    }
    sums[i] = total(sum);
}
