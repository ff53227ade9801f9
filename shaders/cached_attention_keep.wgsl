// The first part of cached_attention: qkv[ROWS, WIDTH + KEPT], places[2, ROWS] | cache[n, CAPACITY, KEPT]. Keeps the keys
// and values of each row at its position, unless it is padding.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    let row = i / KEPT;
    let feature = i % KEPT;
    if row >= ROWS {
        return;
    }
    let position = places[row];
    if position < CAPACITY {
        let value = qkv[row * (WIDTH + KEPT) + WIDTH + feature];
        cache[cache_row(row, position) + feature] = StoreCache(value);
    }
}
