// An activation of an element that is one number; needs activation.wgsl.

fn activate_element(x: f32) -> f32 {
    return activate(x);
}
