//! Batch norm, layer norm and root mean square norm.

use inflight::batch::DType;
use inflight::graph::Arena;
use inflight::graph::op::{Activation, Op};

use crate::bench::Bench;
use crate::{counts, header, normal};

const SHAPES: [&[usize]; 11] = [
    &[2, 1],
    &[64, 3],
    &[65, 10, 3],
    &[600, 5],
    &[4, 3, 17, 19],
    &[128, 8, 2, 2],
    // A tile, one more than a tile, and many of them.
    &[256, 2, 16],
    &[241, 3, 17],
    &[90, 2, 59, 61],
    // As many as one workgroup of a GPU goes over, and a row more.
    &[64, 2, 16, 16],
    &[65, 3, 16, 16],
];

/// On a GPU more tiles of a channel than workgroups merge; and a channel that one vector of a software adapter cannot go over.
const LARGE_SHAPES: [&[usize]; 2] = [&[5, 256, 64, 65], &[2, 1, 1250, 1000]];

/// All shapes with the valid rows of a batch: all, some, or one; of a large one all but one.
fn cases() -> impl Iterator<Item = (&'static [usize], usize)> {
    let small =
        SHAPES.into_iter().flat_map(|shape| counts(shape[0]).into_iter().map(move |n| (shape, n)));
    small.chain(LARGE_SHAPES.into_iter().map(|shape| (shape, shape[0] - 1)))
}

fn far_from_zero(key: u64, len: usize) -> Vec<f32> {
    normal(key, len).iter().map(|x| 30.0 + x).collect()
}

#[test]
fn batch_norm_stats() {
    for (shape, count) in cases() {
        let c = shape[1];
        let mut bench = Bench::new(shape[0], header(count));
        let x = bench.f32(shape, &far_from_zero(1, shape.iter().product()));
        let h = bench.header();
        let mean = bench.output(&[c]);
        let var = bench.output(&[c]);
        let running_mean = bench.in_out(&[c], &normal(2, c));
        let running_var = bench.in_out(&[c], &vec![1.0; c]);
        bench.push(
            Op::BatchNormStats { momentum: 0.1 },
            &[x, h],
            &[mean, var, running_mean, running_var],
        );
        bench.check(1e-5, 1e-5);
    }
}

#[test]
fn statistics_of_what_overflowed_leave_the_running_ones_alone() {
    let bads = [f32::INFINITY, f32::NAN];
    for (bad, shape) in bads.into_iter().flat_map(|bad| [(bad, [65, 3, 1]), (bad, [90, 3, 256])]) {
        let [rows, c, plane] = shape;
        let mut values = normal(1, rows * c * plane);
        // Only the second channel.
        values[(10 * c + 1) * plane] = bad;
        let mut bench = Bench::new(rows, header(rows));
        let x = bench.f32(&shape, &values);
        let [gamma, beta] = [2, 3].map(|key| bench.f32(&[c], &normal(key, c)));
        let h = bench.header();
        let add = |bench: &mut Bench, op: Op, inputs: &[_], y: &[_]| {
            let [mean, var] = [0, 1].map(|_| bench.between(&[c], DType::F32));
            let running = [2, 3].map(|key| bench.in_out(&[c], &normal(key, c)));
            bench.push(op, inputs, &[y, &[mean, var, running[0], running[1]]].concat());
        };
        add(&mut bench, Op::BatchNormStats { momentum: 0.1 }, &[x, h], &[]);
        let activation = Activation::Relu;
        let op = Op::BatchNormTrain { momentum: 0.1, eps: 1e-5, activation, residual: false };
        let y = bench.between(&shape, DType::F32);
        add(&mut bench, op, &[x, gamma, beta, h], &[y]);
        for results in bench.on_both().into_iter().chain([bench.on_cpu()]) {
            for (found, key) in results.iter().zip([2, 3, 2, 3]) {
                let before = normal(key, c);
                assert_eq!(found[1], before[1], "{bad}");
                assert!(found[0] != before[0] && found[2] != before[2], "the others move");
                assert!(found.iter().all(|x| x.is_finite()), "{bad}");
            }
        }
    }
}

#[test]
fn batch_norm() {
    let activations = [Activation::Identity, Activation::Relu, Activation::Gelu];
    for (shape, activation) in SHAPES.into_iter().zip(activations.into_iter().cycle()) {
        for residual in [false, true] {
            let c = shape[1];
            let mut bench = Bench::new(1, header(1));
            let x = bench.f32(shape, &normal(1, shape.iter().product()));
            let [gamma, beta, mean] = [2, 3, 4].map(|key| bench.f32(&[c], &normal(key, c)));
            let var = bench.f32(&[c], &far_from_zero(5, c));
            let mut inputs = vec![x, gamma, beta, mean, var];
            if residual {
                inputs.push(bench.f32(shape, &normal(6, shape.iter().product())));
            }
            let y = bench.output(shape);
            bench.push(Op::BatchNorm { eps: 1e-5, activation, residual }, &inputs, &[y]);
            bench.check(1e-6, 1e-5);
        }
    }
}

#[test]
fn batch_norm_gradients() {
    for (shape, count) in cases() {
        for relu in [false, true] {
            let c = shape[1];
            let len: usize = shape.iter().product();
            let mut bench = Bench::new(shape[0], header(count));
            let mut gradient = normal(1, len);
            // Padding carries no gradient, since the loss gives it none.
            gradient[count * len / shape[0]..].fill(0.0);
            let dy = bench.f32(shape, &gradient);
            let x = bench.f32(shape, &normal(2, len));
            let gamma = bench.f32(&[c], &normal(3, c));
            let beta = bench.f32(&[c], &normal(8, c));
            let mean = bench.f32(&[c], &normal(4, c));
            let var =
                bench.f32(&[c], &normal(5, c).iter().map(|x| 0.5 + x * x).collect::<Vec<_>>());
            let h = bench.header();
            let dgamma = bench.output(&[c]);
            let dbeta = bench.output(&[c]);
            let op = Op::BatchNormParamGrad { eps: 1e-5, relu };
            bench.push(op, &[dy, x, gamma, beta, mean, var], &[dgamma, dbeta]);
            bench.check(1e-4, 1e-4);

            let given = [6, 7].map(|key| bench.f32(&[c], &normal(key, c)));
            let dx = bench.output(shape);
            bench.push(
                Op::BatchNormInputGrad { eps: 1e-5, relu },
                &[dy, x, gamma, beta, mean, var, given[0], given[1], h],
                &[dx],
            );
            bench.check(1e-4, 1e-4);
        }
    }
}

/// A norm makes statistics and applies them as two operations do: every workgroup merges the same, to the bit.
#[test]
fn batch_norm_in_training() {
    let activations = [Activation::Identity, Activation::Relu, Activation::Gelu];
    for (i, (shape, count)) in cases().enumerate() {
        let (activation, residual) = (activations[i % 3], i % 2 == 0);
        let (c, len) = (shape[1], shape.iter().product());
        let mut bench = Bench::new(shape[0], header(count));
        let x = bench.f32(shape, &normal(1, len));
        let [gamma, beta] = [2, 3].map(|key| bench.f32(&[c], &normal(key, c)));
        let h = bench.header();
        let residuals: Vec<_> =
            residual.then(|| bench.f32(shape, &normal(4, len))).into_iter().collect();
        let [y, again] = [(); 2].map(|()| bench.output(shape));
        let [mean, var] = [(); 2].map(|()| bench.in_out_at(Arena::State, &[c], &vec![0.5; c]));
        let running = [5, 6].map(|key| bench.in_out(&[c], &normal(key, c)));
        let inputs = [&[x, gamma, beta, h], &residuals[..]].concat();
        let outputs = [y, mean, var, running[0], running[1]];
        let op = Op::BatchNormTrain { momentum: 0.1, eps: 1e-5, activation, residual };
        bench.push(op, &inputs, &outputs);
        let inputs = [&[x, gamma, beta, mean, var], &residuals[..]].concat();
        bench.push(Op::BatchNorm { eps: 1e-5, activation, residual }, &inputs, &[again]);
        bench.check(1e-4, 1e-4);
        for results in bench.on_both() {
            assert!(results[0] == results[1], "{shape:?}, {count} rows");
        }
    }
}

#[test]
fn batch_norm_gradients_at_once() {
    for (i, (shape, count)) in cases().enumerate() {
        let (c, len, relu) = (shape[1], shape.iter().product::<usize>(), i % 2 == 0);
        let mut bench = Bench::new(shape[0], header(count));
        let mut gradient = normal(1, len);
        gradient[count * len / shape[0]..].fill(0.0);
        let [dy, x] = [gradient, normal(2, len)].map(|values| bench.f32(shape, &values));
        let [gamma, beta, mean] = [3, 8, 4].map(|key| bench.f32(&[c], &normal(key, c)));
        let var = bench.f32(&[c], &normal(5, c).iter().map(|x| 0.5 + x * x).collect::<Vec<_>>());
        let h = bench.header();
        let [dx, again] = [(); 2].map(|()| bench.output(shape));
        let [dgamma, dbeta] = [(); 2].map(|()| bench.in_out_at(Arena::State, &[c], &vec![0.5; c]));
        let over = [dy, x, gamma, beta, mean, var];
        let op = Op::BatchNormGrad { eps: 1e-5, relu };
        bench.push(op, &[&over[..], &[h]].concat(), &[dx, dgamma, dbeta]);
        let inputs = [&over[..], &[dgamma, dbeta, h]].concat();
        bench.push(Op::BatchNormInputGrad { eps: 1e-5, relu }, &inputs, &[again]);
        bench.check(1e-4, 1e-4);
        for results in bench.on_both() {
            assert!(results[0] == results[1], "{shape:?}, {count} rows");
        }
    }
}

#[test]
fn layer_norm_and_its_gradients() {
    for (rows, d) in [(1, 1), (3, 63), (64, 64), (65, 65), (7, 768), (300, 48)] {
        let mut bench = Bench::new(1, header(1));
        let x = bench.f32(&[rows, d], &normal(1, rows * d));
        let gamma = bench.f32(&[d], &normal(2, d));
        let beta = bench.f32(&[d], &normal(3, d));
        let dy = bench.f32(&[rows, d], &normal(4, rows * d));
        let [y, dx] = [(); 2].map(|()| bench.output(&[rows, d]));
        let [mean, rstd] = [5, 6].map(|key| {
            bench.f32(&[rows], &normal(key, rows).iter().map(|x| x.abs()).collect::<Vec<_>>())
        });
        let [mean_out, rstd_out] = [(); 2].map(|()| bench.output(&[rows]));
        let [dgamma, dbeta] = [(); 2].map(|()| bench.output(&[d]));
        let op = Op::LayerNorm { eps: 1e-5, residual: false };
        bench.push(op, &[x, gamma, beta], &[y, mean_out, rstd_out]);
        let op = Op::LayerNormInputGrad { residual: false };
        bench.push(op, &[dy, x, gamma, mean, rstd], &[dx]);
        bench.push(Op::LayerNormParamGrad, &[dy, x, mean, rstd], &[dgamma, dbeta]);
        bench.check(1e-4, 1e-4);
    }
}

#[test]
fn rms_norm_and_its_gradients() {
    for (rows, d) in [(1, 1), (3, 63), (64, 64), (65, 65), (7, 768), (300, 48)] {
        let mut bench = Bench::new(1, header(1));
        let x = bench.f32(&[rows, d], &normal(1, rows * d));
        let gamma = bench.f32(&[d], &normal(2, d));
        let dy = bench.f32(&[rows, d], &normal(4, rows * d));
        let rstd: Vec<f32> = normal(5, rows).iter().map(|x| x.abs()).collect();
        let rstd = bench.f32(&[rows], &rstd);
        let [y, dx] = [(); 2].map(|()| bench.output(&[rows, d]));
        let (rstd_out, dgamma) = (bench.output(&[rows]), bench.output(&[d]));
        bench.push(Op::RmsNorm { eps: 1e-5, residual: false }, &[x, gamma], &[y, rstd_out]);
        bench.push(Op::RmsNormInputGrad { residual: false }, &[dy, x, gamma, rstd], &[dx]);
        bench.push(Op::RmsNormParamGrad, &[dy, x, rstd], &[dgamma]);
        bench.check(1e-4, 1e-4);
    }
}

/// Rows and columns around a workgroup's 64 lanes, and the widths of models.
const RESIDUAL_SHAPES: [(usize, usize); 8] =
    [(1, 1), (63, 1), (3, 63), (64, 64), (65, 65), (7, 128), (5, 768), (300, 48)];

#[test]
fn layer_norm_of_a_sum_and_its_gradient() {
    for (rows, d) in RESIDUAL_SHAPES {
        let mut bench = Bench::new(1, header(1));
        let [x, residual, dy, dsum] =
            [1, 2, 3, 4].map(|key| bench.f32(&[rows, d], &normal(key, rows * d)));
        let [gamma, beta] = [5, 6].map(|key| bench.f32(&[d], &normal(key, d)));
        let [mean, rstd] = [7, 8].map(|key| {
            bench.f32(&[rows], &normal(key, rows).iter().map(|x| x.abs()).collect::<Vec<_>>())
        });
        let [y, sum, dx] = [(); 3].map(|()| bench.output(&[rows, d]));
        let [mean_out, rstd_out] = [(); 2].map(|()| bench.output(&[rows]));
        let op = Op::LayerNorm { eps: 1e-5, residual: true };
        bench.push(op, &[x, gamma, beta, residual], &[y, mean_out, rstd_out, sum]);
        let op = Op::LayerNormInputGrad { residual: true };
        bench.push(op, &[dy, x, gamma, mean, rstd, dsum], &[dx]);
        bench.check(1e-4, 1e-4);
    }
}

#[test]
fn rms_norm_of_a_sum_and_its_gradient() {
    for (rows, d) in RESIDUAL_SHAPES {
        let mut bench = Bench::new(1, header(1));
        let [x, residual, dy, dsum] =
            [1, 2, 3, 4].map(|key| bench.f32(&[rows, d], &normal(key, rows * d)));
        let gamma = bench.f32(&[d], &normal(5, d));
        let rstd: Vec<f32> = normal(6, rows).iter().map(|x| x.abs()).collect();
        let rstd = bench.f32(&[rows], &rstd);
        let [y, sum, dx] = [(); 3].map(|()| bench.output(&[rows, d]));
        let rstd_out = bench.output(&[rows]);
        let op = Op::RmsNorm { eps: 1e-5, residual: true };
        bench.push(op, &[x, gamma, residual], &[y, rstd_out, sum]);
        let op = Op::RmsNormInputGrad { residual: true };
        bench.push(op, &[dy, x, gamma, rstd, dsum], &[dx]);
        bench.check(1e-4, 1e-4);
    }
}
