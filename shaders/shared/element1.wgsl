// What an elementwise shader works on: here one number. Expressions over elements read the same for
// one and for four.

alias Element = f32;

// The sum of an element's numbers.
fn total(x: Element) -> f32 {
    return x;
}
