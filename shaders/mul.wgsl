// mul: a, b | y. y = a b.

@group(0) @binding(0) var<storage, read> a: array<StoreA>;
@group(0) @binding(1) var<storage, read> b: array<StoreB>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        y[i] = StoreY(Element(a[i]) * Element(b[i]));
    }
}
