// bias_grad of a matrix on a GPU: dy[ROWS, CHANNELS] | db[CHANNELS], or partial sums [SPLITS, CHANNELS]. A
// workgroup has 32 columns, which lie side by side, and 8 invocations a column, which share its rows.

override ROWS: u32;
override CHANNELS: u32;
override SPLITS: u32;

const COLUMNS = 32u;
const LANES = 8u;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read_write> db: array<f32>;

var<workgroup> shared_sums: array<f32, COLUMNS * LANES>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let blocks = (CHANNELS + COLUMNS - 1u) / COLUMNS;
    let split = flat_group(grid) / blocks;
    let channel = flat_group(grid) % blocks * COLUMNS + grid.lane % COLUMNS;
    let is_column = split < SPLITS && channel < CHANNELS;
    let first = split * LANES + grid.lane / COLUMNS;
    var sum = 0.0;
    for (var row = first; row < select(0u, ROWS, is_column); row += LANES * SPLITS) {
        sum += f32(dy[row * CHANNELS + channel]);
    }
    shared_sums[grid.lane] = sum;
    workgroupBarrier();
    if is_column && grid.lane < COLUMNS {
        for (var lane = 1u; lane < LANES; lane++) {
            sum += shared_sums[lane * COLUMNS + grid.lane];
        }
        db[split * CHANNELS + channel] = sum;
    }
}
