//! The step's header lies the same on both sides.

use std::mem::{offset_of, size_of};

use inflight::batch::StepHeader;
use wgpu::naga;

#[test]
fn the_shaders_header_has_the_layout_of_the_hosts() {
    let source = include_str!("../../shaders/shared/header.wgsl");
    let module = naga::front::wgsl::parse_str(source).expect("the header parses");
    let inner = module.types.iter().find_map(|(_, ty)| match &ty.inner {
        naga::TypeInner::Struct { members, span } => Some((members, *span)),
        _ => None,
    });
    let (members, span) = inner.expect("a struct");
    assert_eq!(span as usize, size_of::<StepHeader>());
    let found: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or(""), member.offset as usize))
        .collect();
    assert_eq!(
        found,
        [
            ("count", offset_of!(StepHeader, count)),
            ("step", offset_of!(StepHeader, step)),
            ("seed_low", offset_of!(StepHeader, seed_low)),
            ("seed_high", offset_of!(StepHeader, seed_high)),
            ("lr", offset_of!(StepHeader, lr)),
            ("micro_step", offset_of!(StepHeader, micro_step)),
            ("weight", offset_of!(StepHeader, weight)),
            ("pad", offset_of!(StepHeader, _pad)),
        ]
    );
}
