// A batch norm with a residual.

@group(0) @binding(5) var<storage, read> residual: array<StoreResidual>;
@group(0) @binding(6) var<storage, read_write> y: array<StoreY>;

fn add_residual(value: Element, i: u32) -> Element {
    return value + Element(residual[i]);
}
