// A batch norm with a residual, the last of its inputs.

@group(0) @binding(OUTPUTS - 1u) var<storage, read> residual: array<StoreResidual>;

fn add_residual(value: Element, i: u32) -> Element {
    return value + Element(residual[i]);
}
