//! Sums over dimensions.

use inflight::graph::op::{Op, Reduction};

use crate::bench::Bench;
use crate::{header, normal};

#[test]
fn bias_grad() {
    let shapes: [&[usize]; 12] = [
        &[1, 1],
        &[511, 3],
        &[512, 65],
        &[1000, 10],
        &[3, 5, 7],
        &[2, 3, 63, 65],
        &[64, 16, 8, 8],
        &[700, 2, 1],
        &[257, 33],
        &[1, 3, 16],
        &[241, 2, 17],
        &[5, 65, 29, 31],
    ];
    for shape in shapes {
        let mut bench = Bench::new(1, header(1));
        let dy = bench.f32(shape, &normal(1, shape.iter().product()));
        let db = bench.output(&shape[1..2]);
        bench.push(Op::BiasGrad, &[dy], &[db]);
        bench.check(2e-4, 1e-5);
    }
}

#[test]
fn reduce() {
    let cases: [(&[usize], usize); 9] = [
        (&[1], 0),
        (&[20_011], 0),
        (&[65, 3], 0),
        (&[3, 65], 1),
        (&[4, 5, 6], 1),
        (&[1, 5000, 1], 1),
        (&[3, 513, 2], 1),
        (&[2, 700], 1),
        (&[700, 64, 64], 0),
    ];
    for (shape, axis) in cases {
        for reduction in [Reduction::Sum, Reduction::Mean] {
            let mut bench = Bench::new(1, header(1));
            let x = bench.f32(shape, &normal(1, shape.iter().product()));
            let mut reduced = shape.to_vec();
            reduced.remove(axis);
            let y = bench.output(&reduced);
            bench.push(Op::Reduce { reduction, axis }, &[x], &[y]);
            bench.check(3e-4, 1e-5);
        }
    }
}
