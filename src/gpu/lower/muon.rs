//! Muon: what stands between the products of an update.

use super::{by_four, element_shader, elements, shader, single};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered};
use crate::graph::op::{MUON_EPS, NEWTON_SCHULZ, Op};

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let (x, y) = (bound.inputs[0], bound.outputs[0]);
    let four = by_four(y.len());
    match *op {
        Op::MuonMomentum { momentum, nesterov } => {
            let shader = element_shader!(four, "muon_momentum", "dispatch");
            let constants = vec![
                ("MOMENTUM", f64::from(momentum)),
                ("NESTEROV", f64::from(u8::from(nesterov))),
            ];
            single(shader, constants, bound, elements(y.len()), caps)
        }
        Op::MuonNormalize => {
            let shader = element_shader!(four, "muon_normalize", "dispatch");
            let shader = shader.with_stores(four, [("StoreY", y)]);
            let constants = vec![("EPS", f64::from(MUON_EPS))];
            single(shader, constants, bound, elements(y.len()), caps)
        }
        Op::NewtonSchulz => {
            let stores = [("StoreGram", x), ("StoreSquare", bound.inputs[1]), ("StoreY", y)];
            let shader = shader!("newton_schulz", "dispatch").with_stores(false, stores);
            let [a, b, c] = NEWTON_SCHULZ.map(f64::from);
            let constants = vec![("N", x.shape[0] as f64), ("A", a), ("B", b), ("C", c)];
            single(shader, constants, bound, y.len(), caps)
        }
        Op::MuonUpdate { weight_decay, scale } => {
            let shader = element_shader!(four, "muon_update", "dispatch", "header");
            let shader = shader.with_stores(four, [("StoreX", x)]);
            let constants =
                vec![("WEIGHT_DECAY", f64::from(weight_decay)), ("SCALE", f64::from(scale))];
            single(shader, constants, bound, elements(y.len()), caps)
        }
        _ => unreachable!("not a part of muon: {}", op.name()),
    }
}
