// σ(2u) with u = √(2/π) (x + 0.044715 x³), for gelu as GPT-2 approximates it. An exponential that could be infinite is
// held at what a number can still hold.
fn gelu_tanh_gate(x: Element) -> Element {
    let u = 0.7978845608 * (x + 0.044715 * x * x * x);
    return Element(1.0) / (Element(1.0) + exp(min(-2.0 * u, Element(80.0))));
}
