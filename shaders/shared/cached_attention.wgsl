// What the two parts of cached_attention share: the cache of a sequence holds in the row of a position the keys of all
// heads and then their values.

override ROWS: u32;
override WIDTH: u32;
override CAPACITY: u32;

@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> places: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<f32>;

// Where the row of a position begins in the cache of the sequence of a row.
fn cache_row(row: u32, position: u32) -> u32 {
    return (places[ROWS + row] * CAPACITY + position) * 2u * WIDTH;
}
