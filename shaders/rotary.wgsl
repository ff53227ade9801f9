// rotary: q[TOKENS, Q_WIDTH], k[TOKENS, K_WIDTH], v[TOKENS, K_WIDTH], table[ROWS, HEAD] | qkv. Queries and keys turned by
// their positions, and values, in one row.

@group(0) @binding(0) var<storage, read> q: array<StoreQ>;
@group(0) @binding(1) var<storage, read> k: array<StoreK>;
@group(0) @binding(2) var<storage, read> v: array<StoreV>;
@group(0) @binding(3) var<storage, read> table: array<f32>;
@group(0) @binding(4) var<storage, read_write> qkv: array<StoreQkv>;

fn value_at(token: u32, column: u32) -> f32 {
    if column < Q_WIDTH {
        return f32(q[token * Q_WIDTH + column]);
    }
    if !is_value(column) {
        return f32(k[token * K_WIDTH + column - Q_WIDTH]);
    }
    return f32(v[token * K_WIDTH + column - Q_WIDTH - K_WIDTH]);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= TOKENS * row_width() {
        return;
    }
    let token = i / row_width();
    let column = i % row_width();
    let x = value_at(token, column);
    if is_value(column) {
        qkv[i] = StoreQkv(x);
        return;
    }
    let turn = turn_of(token, column);
    qkv[i] = StoreQkv(x * turn.cosine + value_at(token, turn.other) * turn.sine);
}
