// The first part of cached_attention: qkv[ROWS, 3d], places[2, ROWS] | cache[n, CAPACITY, 2d]. Keeps the keys and values
// of each row at its position, unless it is padding.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    let row = i / (2u * WIDTH);
    let feature = i % (2u * WIDTH);
    if row >= ROWS {
        return;
    }
    let position = places[row];
    if position < CAPACITY {
        cache[cache_row(row, position) + feature] = qkv[row * 3u * WIDTH + WIDTH + feature];
    }
}
