// rotary_grad: dqkv, table[ROWS, HEAD] | dq[TOKENS, Q_WIDTH], dk[TOKENS, K_WIDTH], dv[TOKENS, K_WIDTH]. What was turned
// turns back.

@group(0) @binding(0) var<storage, read> dqkv: array<StoreDqkv>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> dq: array<StoreDq>;
@group(0) @binding(3) var<storage, read_write> dk: array<StoreDk>;
@group(0) @binding(4) var<storage, read_write> dv: array<StoreDv>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= TOKENS * row_width() {
        return;
    }
    let token = i / row_width();
    let column = i % row_width();
    let dy = f32(dqkv[i]);
    if is_value(column) {
        dv[token * K_WIDTH + column - Q_WIDTH - K_WIDTH] = StoreDv(dy);
        return;
    }
    let turn = turn_of(token, column);
    let dx = dy * turn.cosine - f32(dqkv[token * row_width() + turn.other]) * turn.sine;
    if column < Q_WIDTH {
        dq[token * Q_WIDTH + column] = StoreDq(dx);
    } else {
        dk[token * K_WIDTH + column - Q_WIDTH] = StoreDk(dx);
    }
}
