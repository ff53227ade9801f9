// The first half of batch_norm_param_grad: dy, x, gamma[c], beta[c], mean[c], var[c] | sums of
// dy (x - mean), sums of dy. Padded rows carry no gradient, so they need no guard.

// Whether dy comes from behind a relu.
override RELU: bool;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> variance: array<f32>;
@group(0) @binding(6) var<storage, read_write> products: array<f32>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    let center = mean[share.channel];
    let scale = scale_of(gamma[share.channel], variance[share.channel]);
    let shift = beta[share.channel];
    var product = Element();
    var sum = Element();
    for (var row = share.first_row; row < ROWS; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            let value = Element(x[plane + column]);
            var gradient = Element(dy[plane + column]);
            if RELU {
                gradient = gate(gradient, norm_of(value, center, scale, shift));
            }
            product += gradient * (value - center);
            sum += gradient;
        }
    }
    products[share.index] = total(product);
    sums[share.index] = total(sum);
}
