// attention_key_grad: dy, qkv, lse, mean | dqkv, of which it writes keys and values. The form for GPUs: a
// workgroup a block of keys of all heads of queries that share it. The tile that changes holds queries, then dy, then the queries again: three
// tiles and the weights are what 32 KiB of workgroup memory hold.

@compute @workgroup_size(LANES)
fn main(grid: Grid) {
    if flat_group(grid) >= PAIRS / group_size() * block_count() {
        return;
    }
    let first_pair = flat_group(grid) / block_count() * group_size();
    let block = flat_group(grid) % block_count() * BLOCK;
    let lane = grid.lane;
    load_part(0u, first_pair, KEYS, block, SCALE, lane);
    load_part(1u, first_pair, VALUES, block, 1.0, lane);
    var key_sums: Sums;
    var value_sums: Sums;
    for (var pair = first_pair; pair < first_pair + group_size(); pair++) {
        for (var first_query = select(0u, block, CAUSAL); first_query < T; first_query += BLOCK) {
            // Later documents see none of these keys.
            if first_key(pair, first_query) >= block + BLOCK {
                break;
            }
            load_part(2u, pair, QUERIES, first_query, 1.0, lane);
            workgroupBarrier();
            var shares = products(0u, 2u, lane);
            var left = shares;
            for (var i = 0u; i < EACH; i++) {
                let key = block + lane / SIDE + SIDE * i;
                for (var j = 0u; j < EACH; j++) {
                    let query = first_query + lane % SIDE + SIDE * j;
                    shares[i][j] = weight_of(pair, query, key, shares[i][j]);
                    left[i][j] = shares[i][j] * kept(pair, query, key);
                }
            }
            share_weights(left, lane);
            workgroupBarrier();
            load_dy(2u, pair, first_query, lane);
            workgroupBarrier();
            var slopes = products(1u, 2u, lane);
            add_weighted(&value_sums, 2u, lane);
            for (var i = 0u; i < EACH; i++) {
                for (var j = 0u; j < EACH; j++) {
                    let query = first_query + lane % SIDE + SIDE * j;
                    slopes[i][j] = left[i][j] * slopes[i][j] - shares[i][j] * mean_of(pair, query);
                }
            }
            workgroupBarrier();
            share_weights(slopes, lane);
            load_part(2u, pair, QUERIES, first_query, 1.0, lane);
            workgroupBarrier();
            add_weighted(&key_sums, 2u, lane);
            workgroupBarrier();
        }
    }
    write_part(key_sums, first_pair, KEYS, block, SCALE, lane);
    write_part(value_sums, first_pair, VALUES, block, 1.0, lane);
}
