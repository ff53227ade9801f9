// What the gradients of attention share, for GPUs; needs attention_tiles.wgsl.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> qkv: array<StoreQkv>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<StoreDqkv>;

// Rows of dy of the tokens from `first` on; zeros past the last.
fn load_dy(tile: u32, pair: u32, first: u32, lane: u32) {
    for (var i = lane; i < BLOCK * QUADS; i += LANES) {
        let token = first + i / QUADS;
        let k = i % QUADS * 4u;
        var quad = vec4<f32>();
        if token < T {
            let at = token_at(pair, token);
            for (var j = 0u; j < 4u; j++) {
                if k + j < HEAD {
                    quad[j] = f32(dy[at + k + j]);
                }
            }
        }
        tiles[tile * TILE + i / QUADS * PITCH + i % QUADS] = quad;
    }
}

// Whether a query sees a key; none past the last token does.
fn sees(pair: u32, query: u32, key: u32) -> bool {
    return query < T && key < T && (!CAUSAL || key <= query) && key >= first_key(pair, query);
}

// The weight of a key for a query, from their score.
fn weight_of(pair: u32, query: u32, key: u32, score: f32) -> f32 {
    if !sees(pair, query, key) {
        return 0.0;
    }
    return exp(score - lse[pair * T + query]);
}

// The mean that the gradient of a query's softmax takes off.
fn mean_of(pair: u32, query: u32) -> f32 {
    return mean[pair * T + min(query, T - 1u)];
}

// Writes the gradient of an invocation's rows from token `first` on.
fn write_part(sums: Sums, pair: u32, part: u32, first: u32, factor: f32, lane: u32) {
    for (var i = 0u; i < EACH; i++) {
        let token = first + lane / SIDE + SIDE * i;
        for (var j = 0u; j < QUADS_EACH; j++) {
            let k = (lane % SIDE + SIDE * j) * 4u;
            for (var l = 0u; l < 4u; l++) {
                if token < T && k + l < HEAD {
                    dqkv[part_at(pair, part, token) + k + l] = StoreDqkv(factor * sums[i][j][l]);
                }
            }
        }
    }
}
