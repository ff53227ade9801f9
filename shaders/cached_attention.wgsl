// cached_attention: qkv[ROWS, WIDTH + KEPT], places[2, ROWS] | cache[n, CAPACITY, KEPT], y[ROWS, WIDTH], once the cache
// holds the keys and values of these rows. LANES invocations share a row and head: each goes over its share of the keys,
// keeping the largest score so far and correcting what it has summed whenever a larger one comes (Milakov and Gimelshein,
// 2018).

override HEADS: u32;
// How many heads of queries share keys and values.
override GROUP: u32;
override SCALE: f32;

const MASKED: f32 = -3.0e38;

@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let pair = row_of(grid);
    let lane = grid.lane % LANES;
    let real = pair < ROWS * HEADS;
    let row = select(0u, pair / HEADS, real);
    let head = pair % HEADS * HEAD;
    let shared_head = pair % HEADS / GROUP * HEAD;
    let position = places[row];
    var end = 0u;
    if real && position < CAPACITY {
        end = position + 1u;
    }
    var features: array<f32, HEAD>;
    var sums: array<f32, HEAD>;
    for (var k = 0u; k < HEAD; k++) {
        features[k] = SCALE * qkv[row * (WIDTH + KEPT) + head + k];
        sums[k] = 0.0;
    }
    var peak = MASKED;
    var total = 0.0;
    for (var key = lane; key < end; key += LANES) {
        let at = cache_row(row, key) + shared_head;
        var score = 0.0;
        for (var k = 0u; k < HEAD; k++) {
            score += features[k] * f32(cache[at + k]);
        }
        let shrink = exp(peak - max(peak, score));
        peak = max(peak, score);
        let weight = exp(score - peak);
        total = total * shrink + weight;
        for (var k = 0u; k < HEAD; k++) {
            sums[k] = sums[k] * shrink + weight * f32(cache[at + KEPT / 2u + k]);
        }
    }
    let highest = row_max(peak, grid);
    // A lane without keys has nothing to add.
    let share = select(0.0, exp(peak - highest), total > 0.0);
    total = row_sum(total * share, grid);
    for (var k = 0u; k < HEAD; k++) {
        let sum = row_sum(sums[k] * share, grid);
        if real && lane == 0u {
            y[row * WIDTH + head + k] = select(0.0, sum / total, end > 0u);
        }
    }
}
