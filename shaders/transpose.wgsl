// transpose: x[n, ROWS, COLUMNS] | y[n, COLUMNS, ROWS].

override ROWS: u32;
override COLUMNS: u32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let row = i % ROWS;
    let column = i / ROWS % COLUMNS;
    y[i] = StoreY(x[(i / (ROWS * COLUMNS) * ROWS + row) * COLUMNS + column]);
}
