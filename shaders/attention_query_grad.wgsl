// attention_query_grad: dy, qkv, lse, mean | dqkv, of which it writes the queries. The form for software
// adapters: an invocation a query.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> qkv: array<StoreQkv>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<StoreDqkv>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= PAIRS * T {
        return;
    }
    let pair = i / T;
    let query = i % T;
    let query_at = part_at(pair, QUERIES, query);
    let dy_at = token_at(pair, query);
    var features: array<f32, HEAD>;
    var gradient: array<f32, HEAD>;
    var sums: array<f32, HEAD>;
    for (var k = 0u; k < HEAD; k++) {
        features[k] = SCALE * f32(qkv[query_at + k]);
        gradient[k] = f32(dy[dy_at + k]);
        sums[k] = 0.0;
    }
    let end = select(T, query + 1u, CAUSAL);
    for (var key = first_key(pair, query); key < end; key++) {
        let key_at = part_at(pair, KEYS, key);
        let value_at = part_at(pair, VALUES, key);
        var score = 0.0;
        var slope = 0.0;
        for (var k = 0u; k < HEAD; k++) {
            score += features[k] * f32(qkv[key_at + k]);
            slope += gradient[k] * f32(qkv[value_at + k]);
        }
        slope = exp(score - lse[i]) * (slope * kept(pair, query, key) - mean[i]);
        for (var k = 0u; k < HEAD; k++) {
            sums[k] += slope * f32(qkv[key_at + k]);
        }
    }
    for (var k = 0u; k < HEAD; k++) {
        dqkv[query_at + k] = StoreDqkv(SCALE * sums[k]);
    }
}
