// attention_query_grad: dy, qkv, lse, mean | dqkv, of which it writes the queries. The form for GPUs: a
// workgroup a block of queries.

@compute @workgroup_size(LANES)
fn main(grid: Grid) {
    if flat_group(grid) >= PAIRS * block_count() {
        return;
    }
    let pair = flat_group(grid) / block_count();
    let first_query = flat_group(grid) % block_count() * BLOCK;
    let lane = grid.lane;
    load_part(0u, pair, QUERIES, first_query, SCALE, lane);
    load_dy(1u, pair, first_query, lane);
    var sums: Sums;
    let end = select(T, min(first_query + BLOCK, T), CAUSAL);
    let begin = first_key(pair, first_query) / BLOCK * BLOCK;
    for (var block = begin; block < end; block += BLOCK) {
        load_part(2u, pair, VALUES, block, 1.0, lane);
        workgroupBarrier();
        var slopes = products(1u, 2u, lane);
        workgroupBarrier();
        load_part(2u, pair, KEYS, block, 1.0, lane);
        workgroupBarrier();
        let scores = products(0u, 2u, lane);
        for (var i = 0u; i < EACH; i++) {
            let query = first_query + lane / SIDE + SIDE * i;
            for (var j = 0u; j < EACH; j++) {
                let key = block + lane % SIDE + SIDE * j;
                let weight = weight_of(pair, query, key, scores[i][j]);
                let factor = kept(pair, query, key);
                slopes[i][j] = weight * (slopes[i][j] * factor - mean_of(pair, query));
            }
        }
        share_weights(slopes, lane);
        workgroupBarrier();
        add_weighted(&sums, 2u, lane);
        workgroupBarrier();
    }
    write_part(sums, pair, QUERIES, first_query, SCALE, lane);
}
