// The result, written one element at a time.

@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<YStore>;

fn write(split: u32, group: u32, row: u32, col: u32, value: f32) {
    if row < ROWS && col < COLS {
        y[place(split, group, row, col)] = YStore(activate(value));
    }
}

fn write_quad(split: u32, group: u32, row: u32, col: u32, values: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        write(split, group, row, col + i, values[i]);
    }
}
