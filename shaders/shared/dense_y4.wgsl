// The result, written four columns at a time, which lie side by side.

@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<YStore>;

fn write_quad(split: u32, group: u32, row: u32, col: u32, values: vec4<f32>) {
    if row < ROWS && col < COLS {
        let at = place(split, group, row, col) / 4u;
        y[at] = YStore(vec4<f32>(
            activate(values.x), activate(values.y), activate(values.z), activate(values.w)
        ));
    }
}
