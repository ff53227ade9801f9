// gelu_tanh_grad: dy, x | dx. dx = dy (g + x g (1 - g) 2u'), with the gate g of shared/gelu_tanh.wgsl.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&dx)) {
        let value = Element(x[i]);
        let gate = gelu_tanh_gate(value);
        let inner = 1.5957691216 * (Element(1.0) + 0.134145 * value * value);
        let slope = gate + value * gate * (Element(1.0) - gate) * inner;
        dx[i] = StoreDx(Element(dy[i]) * slope);
    }
}
