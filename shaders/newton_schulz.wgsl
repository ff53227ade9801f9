// newton_schulz: gram[N, N], square[N, N] | polynomial[N, N]. A I + B gram + C square.

override N: u32;
override A: f32;
override B: f32;
override C: f32;

@group(0) @binding(0) var<storage, read> gram: array<StoreGram>;
@group(0) @binding(1) var<storage, read> square: array<StoreSquare>;
@group(0) @binding(2) var<storage, read_write> polynomial: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&polynomial)) {
        let diagonal = select(0.0, A, i / N == i % N);
        polynomial[i] = StoreY(B * f32(gram[i]) + C * f32(square[i]) + diagonal);
    }
}
