// The first part of cached_attention: qkv[n, T, WIDTH + KEPT], positions[n, T] | cache[n, CAPACITY, KEPT]. Keeps the keys and values
// of each token in the row of its position, unless it is padding.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    let token = i / KEPT;
    let feature = i % KEPT;
    if token >= TOKENS {
        return;
    }
    let position = positions[token];
    if position < CAPACITY {
        let value = qkv[token * (WIDTH + KEPT) + WIDTH + feature];
        cache[cache_row(token, position) + feature] = StoreCache(value);
    }
}
