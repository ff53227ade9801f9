// embedding: ids[..], table[ROWS, WIDTH] | y[.., WIDTH]. A row of the table for each id; WIDTH counts elements.

override ROWS: u32;
override WIDTH: u32;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<StoreTable>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        let place = i / WIDTH;
        let row = min(id_of(ids[word_of(place)], place), ROWS - 1u);
        y[i] = StoreY(Element(table[row * WIDTH + i % WIDTH]));
    }
}
