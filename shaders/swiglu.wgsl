// swiglu: gate, up | y. y = gate σ(gate) up.

@group(0) @binding(0) var<storage, read> gate: array<StoreGate>;
@group(0) @binding(1) var<storage, read> up: array<StoreUp>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        let value = Element(gate[i]);
        y[i] = StoreY(value / (1.0 + exp(-value)) * Element(up[i]));
    }
}
