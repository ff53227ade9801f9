// What the two parts of cached_attention share: a row of qkv holds WIDTH features of queries and then KEPT of keys and
// values, and the cache of a sample holds the latter in the row of a position.

override TOKENS: u32;
override T: u32;
override WIDTH: u32;
override KEPT: u32;
override CAPACITY: u32;

@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<StoreCache>;

// Where the row of a position begins in the cache of the sample of a token.
fn cache_row(token: u32, position: u32) -> u32 {
    return (token / T * CAPACITY + position) * KEPT;
}
