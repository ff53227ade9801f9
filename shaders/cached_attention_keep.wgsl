// The first part of cached_attention: qkv[n, T, 3d], positions[n, T] | cache[n, CAPACITY, 2d]. Keeps the keys and values
// of each token in the row of its position, unless it is padding.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    let token = i / (2u * WIDTH);
    let feature = i % (2u * WIDTH);
    if token >= TOKENS {
        return;
    }
    let position = positions[token];
    if position < CAPACITY {
        cache[cache_row(token, position) + feature] = qkv[token * 3u * WIDTH + WIDTH + feature];
    }
}
