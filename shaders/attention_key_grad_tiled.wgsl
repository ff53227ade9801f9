// attention_key_grad: dy, qkv, lse, mean | dqkv, of which it writes keys and values. The form for GPUs: a
// workgroup a block of keys. The tile that changes holds queries, then dy, then the queries again: three
// tiles and the weights are what 32 KiB of workgroup memory hold.

@compute @workgroup_size(LANES)
fn main(grid: Grid) {
    if flat_group(grid) >= PAIRS * block_count() {
        return;
    }
    let pair = flat_group(grid) / block_count();
    let first_key = flat_group(grid) % block_count() * BLOCK;
    let lane = grid.lane;
    load_part(0u, pair, KEYS, first_key, SCALE, lane);
    load_part(1u, pair, VALUES, first_key, 1.0, lane);
    var key_sums: Sums;
    var value_sums: Sums;
    for (var first_query = select(0u, first_key, CAUSAL); first_query < T; first_query += BLOCK) {
        load_part(2u, pair, QUERIES, first_query, 1.0, lane);
        workgroupBarrier();
        var shares = products(0u, 2u, lane);
        for (var i = 0u; i < EACH; i++) {
            let key = first_key + lane / SIDE + SIDE * i;
            for (var j = 0u; j < EACH; j++) {
                let query = first_query + lane % SIDE + SIDE * j;
                shares[i][j] = weight_of(pair, query, key, shares[i][j]);
            }
        }
        share_weights(shares, lane);
        workgroupBarrier();
        load_dy(2u, pair, first_query, lane);
        workgroupBarrier();
        var slopes = products(1u, 2u, lane);
        add_weighted(&value_sums, 2u, lane);
        for (var i = 0u; i < EACH; i++) {
            for (var j = 0u; j < EACH; j++) {
                let query = first_query + lane % SIDE + SIDE * j;
                slopes[i][j] = shares[i][j] * (slopes[i][j] - mean_of(pair, query));
            }
        }
        workgroupBarrier();
        share_weights(slopes, lane);
        load_part(2u, pair, QUERIES, first_query, 1.0, lane);
        workgroupBarrier();
        add_weighted(&key_sums, 2u, lane);
        workgroupBarrier();
    }
    write_part(key_sums, pair, KEYS, first_key, SCALE, lane);
    write_part(value_sums, pair, VALUES, first_key, 1.0, lane);
}
