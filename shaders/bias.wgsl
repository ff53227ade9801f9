// bias: x[n, c, ..], bias[c] | y[n, c, ..]. y = x + bias.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    let shift = bias[share.channel];
    for (var row = share.first_row; row < ROWS; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            y[plane + column] = StoreY(Element(x[plane + column]) + shift);
        }
    }
}
