//! Matrix products and convolutions.

use super::kernel::{Bound, DeviceCaps, Lowered};
use crate::graph::op::Op;

/// The dispatches of a dense operation.
pub fn lower(_op: &Op, _bound: Bound, _caps: &DeviceCaps) -> Lowered {
    Lowered::default()
}
