//! The step's header and the framings lie the same on both sides.

use std::mem::{offset_of, size_of};

use inflight::batch::StepHeader;
use inflight::framing::Framing;
use wgpu::naga;

#[test]
fn the_shaders_header_has_the_layout_of_the_hosts() {
    expect_layout(
        include_str!("../../shaders/shared/header.wgsl"),
        size_of::<StepHeader>(),
        &[
            ("count", offset_of!(StepHeader, count)),
            ("step", offset_of!(StepHeader, step)),
            ("seed_low", offset_of!(StepHeader, seed_low)),
            ("seed_high", offset_of!(StepHeader, seed_high)),
            ("lr", offset_of!(StepHeader, lr)),
            ("micro_step", offset_of!(StepHeader, micro_step)),
            ("weight", offset_of!(StepHeader, weight)),
            ("pad", offset_of!(StepHeader, _pad)),
        ],
    );
}

#[test]
fn the_shaders_framing_has_the_layout_of_the_hosts() {
    expect_layout(
        include_str!("../../shaders/shared/framing.wgsl"),
        size_of::<Framing>(),
        &[
            ("row", offset_of!(Framing, row)),
            ("row_step", offset_of!(Framing, row_step)),
            ("column", offset_of!(Framing, column)),
            ("column_step", offset_of!(Framing, column_step)),
            ("top", offset_of!(Framing, top)),
            ("bottom", offset_of!(Framing, bottom)),
            ("left", offset_of!(Framing, left)),
            ("right", offset_of!(Framing, right)),
            ("cover_top", offset_of!(Framing, cover_top)),
            ("cover_bottom", offset_of!(Framing, cover_bottom)),
            ("cover_left", offset_of!(Framing, cover_left)),
            ("cover_right", offset_of!(Framing, cover_right)),
            ("cover", offset_of!(Framing, cover)),
            ("margin", offset_of!(Framing, margin)),
        ],
    );
}

/// Expects the first struct of a shader to be of `bytes`, with these members at these offsets.
#[track_caller]
fn expect_layout(source: &str, bytes: usize, expected: &[(&str, usize)]) {
    let module = naga::front::wgsl::parse_str(source).expect("the shader parses");
    let inner = module.types.iter().find_map(|(_, ty)| match &ty.inner {
        naga::TypeInner::Struct { members, span } => Some((members, *span)),
        _ => None,
    });
    let (members, span) = inner.expect("a struct");
    assert_eq!(span as usize, bytes);
    let found: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or(""), member.offset as usize))
        .collect();
    assert_eq!(found, expected);
}
