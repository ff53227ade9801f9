// Attention within documents: starts[n, T] is the first token that each attends to, which only grows within a sample.

@group(0) @binding(STARTS) var<storage, read> starts: array<u32>;

fn first_key(pair: u32, query: u32) -> u32 {
    return starts[pair / HEADS * T + min(query, T - 1u)];
}
