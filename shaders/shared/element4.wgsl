// What an elementwise shader works on: here four numbers, for tensors whose length is a multiple of
// four. Expressions over elements read the same for one and for four.

alias Element = vec4<f32>;

// The sum of an element's numbers.
fn total(x: Element) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
