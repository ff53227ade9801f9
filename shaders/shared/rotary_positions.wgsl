// The position of each token is given.

@group(0) @binding(POSITIONS) var<storage, read> positions: array<u32>;

fn position_of(token: u32) -> u32 {
    return positions[token];
}
