// The first half of batch_norm_param_grad: dy, x, mean[c] | sums of dy (x - mean), sums of dy. Padded
// rows carry no gradient, so they need no guard.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> products: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    let center = mean[share.channel];
    var product = 0.0;
    var sum = 0.0;
    for (var row = share.first_row; row < ROWS; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            let gradient = f32(dy[plane + column]);
            product += gradient * (f32(x[plane + column]) - center);
            sum += gradient;
        }
    }
    products[share.index] = product;
    sums[share.index] = sum;
}
