// swiglu_grad: dy, gate, up | dgate, dup. The slope of x σ(x) is σ(x) (1 + x (1 - σ(x))).

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> gate: array<StoreGate>;
@group(0) @binding(2) var<storage, read> up: array<StoreUp>;
@group(0) @binding(3) var<storage, read_write> dgate: array<StoreDgate>;
@group(0) @binding(4) var<storage, read_write> dup: array<StoreDup>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&dgate)) {
        let gradient = Element(dy[i]);
        let value = Element(gate[i]);
        let share = 1.0 / (1.0 + exp(-value));
        dgate[i] = StoreDgate(gradient * Element(up[i]) * share * (1.0 + value * (1.0 - share)));
        dup[i] = StoreDup(gradient * value * share);
    }
}
