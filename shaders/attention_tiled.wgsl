// attention: qkv | y, lse[n, heads, T]. The form for GPUs: a workgroup a block of queries.
// It keeps the largest score of each query so far and corrects what it has summed whenever a larger one
// comes (Milakov and Gimelshein, 2018; Dao et al., 2022).

@group(0) @binding(0) var<storage, read> qkv: array<StoreQkv>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

// A factor for each row.
var<workgroup> factors: array<f32, BLOCK>;

// What the scores of invocation `lane`, which owns row `lane`, come to.
struct Softmax {
    peak: f32,
    total: f32,
}

// Turns the scores of a row of a query for the keys of a block into weights, with the sum of all tiles so far up to date.
fn weigh(before: Softmax, row: u32, pair: u32, query: u32, block: u32) -> Softmax {
    var peak = before.peak;
    for (var k = 0u; k < BLOCK; k++) {
        peak = max(peak, weights[row * WEIGHT_PITCH + k]);
    }
    var total = before.total * exp(before.peak - peak);
    for (var k = 0u; k < BLOCK; k++) {
        let weight = exp(weights[row * WEIGHT_PITCH + k] - peak);
        weights[row * WEIGHT_PITCH + k] = weight * kept(pair, query, block + k);
        total += weight;
    }
    factors[row] = exp(before.peak - peak);
    return Softmax(peak, total);
}

@compute @workgroup_size(LANES)
fn main(grid: Grid) {
    if flat_group(grid) >= PAIRS * block_count() {
        return;
    }
    let pair = flat_group(grid) / block_count();
    let first_query = flat_group(grid) % block_count() * BLOCK;
    let lane = grid.lane;
    load_part(0u, pair, QUERIES, first_query, SCALE, lane);
    var sums: Sums;
    var softmax = Softmax(MASKED, 0.0);
    let end = select(T, min(first_query + BLOCK, T), CAUSAL);
    let begin = first_key(pair, first_query) / BLOCK * BLOCK;
    for (var block = begin; block < end; block += BLOCK) {
        load_part(1u, pair, KEYS, block, 1.0, lane);
        workgroupBarrier();
        var scores = products(0u, 1u, lane);
        for (var i = 0u; i < EACH; i++) {
            let query = first_query + lane / SIDE + SIDE * i;
            for (var j = 0u; j < EACH; j++) {
                let key = block + lane % SIDE + SIDE * j;
                if key >= T || (CAUSAL && key > query) || key < first_key(pair, query) {
                    scores[i][j] = MASKED;
                }
            }
        }
        share_weights(scores, lane);
        workgroupBarrier();
        if lane < BLOCK {
            softmax = weigh(softmax, lane, pair, first_query + lane, block);
        }
        load_part(1u, pair, VALUES, block, 1.0, lane);
        workgroupBarrier();
        for (var i = 0u; i < EACH; i++) {
            let factor = factors[lane / SIDE + SIDE * i];
            for (var j = 0u; j < QUADS_EACH; j++) {
                sums[i][j] *= factor;
            }
        }
        add_weighted(&sums, 1u, lane);
        workgroupBarrier();
    }
    if lane < BLOCK {
        factors[lane] = 1.0 / softmax.total;
        if first_query + lane < T {
            lse[pair * T + first_query + lane] = softmax.peak + log(softmax.total);
        }
    }
    workgroupBarrier();
    for (var i = 0u; i < EACH; i++) {
        let row = lane / SIDE + SIDE * i;
        for (var j = 0u; j < QUADS_EACH; j++) {
            let k = (lane % SIDE + SIDE * j) * 4u;
            for (var l = 0u; l < 4u; l++) {
                if first_query + row < T && k + l < HEAD {
                    let at = token_at(pair, first_query + row) + k + l;
                    y[at] = StoreY(sums[i][j][l] * factors[row]);
                }
            }
        }
    }
}
