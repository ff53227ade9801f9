// attention_key_grad: dy, qkv, lse, mean | dqkv, of which it writes keys and values. The form for software
// adapters: an invocation a key of all heads of queries that share it.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> qkv: array<StoreQkv>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<StoreDqkv>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= PAIRS / group_size() * T {
        return;
    }
    let first_pair = i / T * group_size();
    let key = i % T;
    let key_at = part_at(first_pair, KEYS, key);
    let value_at = part_at(first_pair, VALUES, key);
    var key_features: array<f32, HEAD>;
    var value_features: array<f32, HEAD>;
    var key_sums: array<f32, HEAD>;
    var value_sums: array<f32, HEAD>;
    for (var k = 0u; k < HEAD; k++) {
        key_features[k] = SCALE * f32(qkv[key_at + k]);
        value_features[k] = f32(qkv[value_at + k]);
        key_sums[k] = 0.0;
        value_sums[k] = 0.0;
    }
    for (var pair = first_pair; pair < first_pair + group_size(); pair++) {
        for (var query = select(0u, key, CAUSAL); query < T; query++) {
            if first_key(pair, query) > key {
                break;
            }
            let query_at = part_at(pair, QUERIES, query);
            let dy_at = token_at(pair, query);
            var score = 0.0;
            var slope = 0.0;
            for (var k = 0u; k < HEAD; k++) {
                score += key_features[k] * f32(qkv[query_at + k]);
                slope += value_features[k] * f32(dy[dy_at + k]);
            }
            let weight = exp(score - lse[pair * T + query]);
            let factor = kept(pair, query, key);
            slope = weight * (slope * factor - mean[pair * T + query]);
            for (var k = 0u; k < HEAD; k++) {
                key_sums[k] += slope * f32(qkv[query_at + k]);
                value_sums[k] += weight * factor * f32(dy[dy_at + k]);
            }
        }
    }
    for (var k = 0u; k < HEAD; k++) {
        dqkv[key_at + k] = StoreDqkv(SCALE * key_sums[k]);
        dqkv[value_at + k] = StoreDqkv(value_sums[k]);
    }
}
