// Blocks of tokens in workgroup memory, for GPUs; needs dispatch.wgsl and attention.wgsl. A workgroup of SIDE
// by SIDE invocations owns BLOCK tokens of a pair of sample and head and walks over the others a tile of
// BLOCK at a time. An invocation computes EACH by EACH products of two tiles, and of a sum over weighted
// tokens EACH rows and some of their columns; its rows and columns lie SIDE apart.
//
// Features go four at a time, behind the last are zeros. Rows of a tile are padded to an odd number of
// quads, so that neighbouring rows do not meet in one bank.
//
// Needs EACH and TILES, how many tiles there are. All invocations must call these functions together.

const SIDE = 8u;
const LANES = SIDE * SIDE;
const BLOCK = SIDE * EACH;
const QUADS = (HEAD + 3u) / 4u;
const PITCH = QUADS + 1u - QUADS % 2u;
const TILE = BLOCK * PITCH;
const QUADS_EACH = (QUADS + SIDE - 1u) / SIDE;
const WEIGHT_PITCH = BLOCK + 1u;

alias Patch = array<array<f32, EACH>, EACH>;
alias Sums = array<array<vec4<f32>, QUADS_EACH>, EACH>;

var<workgroup> tiles: array<vec4<f32>, TILES * TILE>;
var<workgroup> weights: array<f32, BLOCK * WEIGHT_PITCH>;

// How many blocks the tokens of a pair make.
fn block_count() -> u32 {
    return (T + BLOCK - 1u) / BLOCK;
}

// Queries, keys or values of the tokens from `first` on; zeros past the last.
fn load_part(tile: u32, pair: u32, part: u32, first: u32, factor: f32, lane: u32) {
    for (var i = lane; i < BLOCK * QUADS; i += LANES) {
        let token = first + i / QUADS;
        let k = i % QUADS * 4u;
        var quad = vec4<f32>();
        if token < T {
            let at = part_at(pair, part, token);
            for (var j = 0u; j < 4u; j++) {
                if k + j < HEAD {
                    quad[j] = factor * f32(qkv[at + k + j]);
                }
            }
        }
        tiles[tile * TILE + i / QUADS * PITCH + i % QUADS] = quad;
    }
}

// The products of an invocation's rows of tile `a` with its rows of tile `b`.
fn products(a: u32, b: u32, lane: u32) -> Patch {
    var scores: Patch;
    for (var quad = 0u; quad < QUADS; quad++) {
        var others: array<vec4<f32>, EACH>;
        for (var j = 0u; j < EACH; j++) {
            others[j] = tiles[b * TILE + (lane % SIDE + SIDE * j) * PITCH + quad];
        }
        for (var i = 0u; i < EACH; i++) {
            let own = tiles[a * TILE + (lane / SIDE + SIDE * i) * PITCH + quad];
            for (var j = 0u; j < EACH; j++) {
                scores[i][j] += dot(own, others[j]);
            }
        }
    }
    return scores;
}

// Puts an invocation's part of the weights where all find it.
fn share_weights(scores: Patch, lane: u32) {
    for (var i = 0u; i < EACH; i++) {
        for (var j = 0u; j < EACH; j++) {
            weights[(lane / SIDE + SIDE * i) * WEIGHT_PITCH + lane % SIDE + SIDE * j] = scores[i][j];
        }
    }
}

// Adds the weighted rows of a tile.
fn add_weighted(sums: ptr<function, Sums>, tile: u32, lane: u32) {
    for (var other = 0u; other < BLOCK; other++) {
        for (var j = 0u; j < QUADS_EACH; j++) {
            let quad = min(lane % SIDE + SIDE * j, QUADS - 1u);
            let features = tiles[tile * TILE + other * PITCH + quad];
            for (var i = 0u; i < EACH; i++) {
                (*sums)[i][j] += weights[(lane / SIDE + SIDE * i) * WEIGHT_PITCH + other] * features;
            }
        }
    }
}
