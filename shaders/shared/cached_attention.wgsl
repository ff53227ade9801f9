// What the two parts of cached_attention share: a row of qkv holds WIDTH features of queries and then KEPT of keys and
// values, and the cache of a sequence holds the latter in the row of a position.

override ROWS: u32;
override WIDTH: u32;
override KEPT: u32;
override CAPACITY: u32;

@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> places: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<StoreCache>;

// Where the row of a position begins in the cache of the sequence of a row.
fn cache_row(row: u32, position: u32) -> u32 {
    return (places[ROWS + row] * CAPACITY + position) * KEPT;
}
