// attention: qkv | y[n, T, d], lse[n, heads, T]. The form for software adapters: an invocation a
// query. One pass over the keys, which keeps the largest score so far and corrects what it has summed
// whenever a larger one comes (Milakov and Gimelshein, 2018).

@group(0) @binding(0) var<storage, read> qkv: array<StoreQkv>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= PAIRS * T {
        return;
    }
    let pair = i / T;
    let query = i % T;
    let query_at = part_at(pair, QUERIES, query);
    var features: array<f32, HEAD>;
    var sums: array<f32, HEAD>;
    for (var k = 0u; k < HEAD; k++) {
        features[k] = SCALE * f32(qkv[query_at + k]);
        sums[k] = 0.0;
    }
    var peak = MASKED;
    var total = 0.0;
    let end = select(T, query + 1u, CAUSAL);
    for (var key = first_key(pair, query); key < end; key++) {
        let key_at = part_at(pair, KEYS, key);
        let value_at = part_at(pair, VALUES, key);
        var score = 0.0;
        for (var k = 0u; k < HEAD; k++) {
            score += features[k] * f32(qkv[key_at + k]);
        }
        let shrink = exp(peak - max(peak, score));
        peak = max(peak, score);
        let weight = exp(score - peak);
        total = total * shrink + weight;
        let share = weight * kept(pair, query, key);
        for (var k = 0u; k < HEAD; k++) {
            sums[k] = sums[k] * shrink + share * f32(qkv[value_at + k]);
        }
    }
    let y_at = token_at(pair, query);
    for (var k = 0u; k < HEAD; k++) {
        y[y_at + k] = StoreY(sums[k] / total);
    }
    lse[i] = peak + log(total);
}
