// An activation of an element that is four numbers; needs activation.wgsl.

fn activate_element(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(activate(x.x), activate(x.y), activate(x.z), activate(x.w));
}
