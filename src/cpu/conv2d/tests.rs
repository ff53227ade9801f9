use super::*;
use crate::cpu::testing::{in_pools, run_op};
use crate::testing::{assert_close, dot, finite_difference, normal};

/// A convolution to test: shapes of input and weight, and geometry.
#[derive(Clone, Copy, Debug)]
struct Case {
    x: [usize; 4],
    w: [usize; 4],
    geometry: ConvGeometry,
}

impl Case {
    fn y(&self) -> [usize; 4] {
        let out = |i: usize| {
            let ConvGeometry { stride, padding, .. } = self.geometry;
            (self.x[2 + i] + 2 * padding[i] - self.w[2 + i]) / stride[i] + 1
        };
        [self.x[0], self.w[0], out(0), out(1)]
    }
}

fn cases() -> Vec<Case> {
    let case = |x, w, stride, padding, groups| Case {
        x,
        w,
        geometry: ConvGeometry { stride, padding, groups },
    };
    vec![
        case([1, 1, 1, 1], [1, 1, 1, 1], [1, 1], [0, 0], 1),
        case([3, 1, 6, 5], [4, 1, 3, 3], [1, 1], [1, 1], 1),
        case([2, 3, 5, 7], [2, 3, 3, 2], [1, 1], [0, 1], 1),
        case([2, 2, 7, 8], [3, 2, 3, 3], [2, 2], [1, 1], 1),
        case([2, 4, 5, 5], [6, 2, 3, 3], [1, 1], [1, 1], 2),
        case([2, 3, 6, 6], [3, 1, 3, 3], [2, 1], [1, 0], 3),
        case([2, 3, 7, 40], [3, 1, 3, 5], [1, 1], [1, 2], 3),
        case([3, 2, 5, 37], [2, 1, 3, 3], [2, 2], [1, 1], 2),
        case([2, 2, 5, 6], [4, 1, 3, 3], [1, 1], [1, 1], 2),
        case([2, 5, 4, 4], [3, 5, 1, 1], [1, 1], [0, 0], 1),
        case([2, 5, 5, 4], [3, 5, 1, 1], [2, 2], [0, 0], 1),
    ]
}

/// y = x ⋆ w in plain loops.
fn naive(case: Case, x: &[f64], w: &[f64]) -> Vec<f64> {
    let ([n, o, oh, ow], [_, c, h, width]) = (case.y(), case.x);
    let [_, cg, kh, kw] = case.w;
    let ConvGeometry { stride, padding, groups } = case.geometry;
    let mut y = Vec::new();
    for at in 0..n * o * oh * ow {
        let (i, k, oy, ox) = (at / (o * oh * ow), at / (oh * ow) % o, at / ow % oh, at % ow);
        let mut sum = 0.0;
        for (cc, ky, kx) in (0..cg * kh * kw).map(|e| (e / (kh * kw), e / kw % kh, e % kw)) {
            let channel = k / (o / groups) * cg + cc;
            let (iy, ix) = (oy * stride[0] + ky, ox * stride[1] + kx);
            if (padding[0]..padding[0] + h).contains(&iy)
                && (padding[1]..padding[1] + width).contains(&ix)
            {
                let x = x[((i * c + channel) * h + iy - padding[0]) * width + ix - padding[1]];
                sum += x * w[((k * cg + cc) * kh + ky) * kw + kx];
            }
        }
        y.push(sum);
    }
    y
}

fn len(shape: [usize; 4]) -> usize {
    shape.iter().product()
}

fn forward<T: Real>(case: Case, x: &[f64], w: &[f64], bias: &[f64]) -> Vec<T> {
    let Case { geometry, .. } = case;
    let op = Op::Conv2d { geometry, bias: true, activation: Activation::Relu };
    let shapes = [case.x.to_vec(), case.w.to_vec(), vec![bias.len()]];
    run_op::<T>(op, &[x, w, bias], &shapes, &[case.y().to_vec()]).remove(0)
}

#[test]
fn forward_matches_plain_loops() {
    for case in cases() {
        let [_, o, oh, ow] = case.y();
        let (x, w, bias) = (normal(1, len(case.x)), normal(2, len(case.w)), normal(3, o));
        let mut expected = naive(case, &x, &w);
        for (i, y) in expected.iter_mut().enumerate() {
            *y = (*y + bias[i / (oh * ow) % o]).max(0.0);
        }
        assert_close(&forward::<f32>(case, &x, &w, &bias), &expected, 1e-5, 1e-5);
        assert_close(&forward::<f64>(case, &x, &w, &bias), &expected, 1e-12, 1e-12);
    }
}

#[test]
fn gradients_match_finite_differences_of_the_plain_loops() {
    for case in cases() {
        let Case { geometry, .. } = case;
        let (x, w, dy) = (normal(1, len(case.x)), normal(2, len(case.w)), normal(3, len(case.y())));
        let (xs, ws, ys) = (case.x.to_vec(), case.w.to_vec(), case.y().to_vec());

        let expected = finite_difference(&x, |x| dot(&naive(case, x, &w), &dy));
        let op = Op::Conv2dInputGrad { geometry };
        let shapes = [ys.clone(), ws.clone()];
        let dx = run_op::<f64>(op, &[&dy, &w], &shapes, std::slice::from_ref(&xs));
        assert_close(&dx[0], &expected, 1e-7, 1e-7);
        let dx = run_op::<f32>(op, &[&dy, &w], &shapes, std::slice::from_ref(&xs));
        assert_close(&dx[0], &expected, 1e-5, 1e-5);

        let expected = finite_difference(&w, |w| dot(&naive(case, &x, w), &dy));
        let op = Op::Conv2dWeightGrad { geometry };
        let shapes = [xs, ys];
        let dw = run_op::<f64>(op, &[&x, &dy], &shapes, std::slice::from_ref(&ws));
        assert_close(&dw[0], &expected, 1e-7, 1e-7);
        let dw = run_op::<f32>(op, &[&x, &dy], &shapes, std::slice::from_ref(&ws));
        assert_close(&dw[0], &expected, 1e-5, 1e-5);
    }
}

/// Shapes that go through Winograd's transforms: whole and partial tiles, no padding and the widest, several blocks
/// and tasks, tiles of several images in one block.
fn winograd_cases() -> Vec<Case> {
    let case = |n, [c, o]: [usize; 2], [h, w]: [usize; 2], padding| Case {
        x: [n, c, h, w],
        w: [o, c, 3, 3],
        geometry: ConvGeometry { stride: [1, 1], padding, groups: 1 },
    };
    vec![
        case(1, [32, 32], [4, 4], [1, 1]),
        case(2, [32, 80], [5, 7], [1, 1]),
        case(3, [48, 32], [13, 5], [0, 2]),
        case(1, [32, 32], [40, 37], [1, 1]),
        case(67, [32, 32], [3, 4], [1, 1]),
    ]
}

/// Scaled so that results have a standard deviation of about 1.
fn scaled(key: u64, len: usize, terms: usize) -> Vec<f64> {
    normal(key, len).iter().map(|x| x / (terms as f64).sqrt()).collect()
}

#[test]
fn winograd_matches_plain_loops() {
    for case in winograd_cases() {
        let Case { geometry, x: [_, c, ..], .. } = case;
        let [_, o, oh, ow] = case.y();
        let (x, w) = (normal(1, len(case.x)), scaled(2, len(case.w), 9 * c));
        let mut expected = naive(case, &x, &w);
        let bias = normal(3, o);
        for (i, y) in expected.iter_mut().enumerate() {
            *y = (*y + bias[i / (oh * ow) % o]).max(0.0);
        }
        assert_close(&forward::<f32>(case, &x, &w, &bias), &expected, 2e-5, 0.0);
        assert_close(&forward::<f64>(case, &x, &w, &bias), &expected, 1e-13, 1e-13);

        // The gradients are adjoint to the forward pass, which for a bilinear map is all there is to them.
        let dy = normal(4, len(case.y()));
        let (xs, ws, ys) = (case.x.to_vec(), case.w.to_vec(), case.y().to_vec());
        let op = Op::Conv2dInputGrad { geometry };
        let shapes = [ys.clone(), ws.clone()];
        let dx = run_op::<f64>(op, &[&dy, &w], &shapes, std::slice::from_ref(&xs));
        let op = Op::Conv2dWeightGrad { geometry };
        let dw = run_op::<f64>(op, &[&x, &dy], &[xs, ys], std::slice::from_ref(&ws));
        let (u, v) = (normal(5, len(case.x)), normal(6, len(case.w)));
        assert_close(&[dot(&dx[0], &u)], &[dot(&naive(case, &u, &w), &dy)], 1e-9, 1e-12);
        assert_close(&[dot(&dw[0], &v)], &[dot(&naive(case, &x, &v), &dy)], 1e-9, 1e-12);
    }
}

/// More samples than parts, and a last part that is shorter.
#[test]
fn the_weight_gradient_adds_up_the_whole_batch() {
    let one = Case { x: [1, 2, 5, 5], ..cases()[4] };
    let one = Case { w: [4, 1, 3, 3], ..one };
    let many = Case { x: [67, 2, 5, 5], ..one };
    let (x, dy) = (normal(1, len(many.x)), normal(2, len(many.y())));
    let op = Op::Conv2dWeightGrad { geometry: one.geometry };
    let mut expected = vec![0.0; len(one.w)];
    let samples = x.chunks(len(one.x)).zip(dy.chunks(len(one.y())));
    for (x, dy) in samples {
        let shapes = [one.x.to_vec(), one.y().to_vec()];
        let dw = run_op::<f64>(op, &[x, dy], &shapes, &[one.w.to_vec()]);
        expected.iter_mut().zip(&dw[0]).for_each(|(sum, dw)| *sum += dw);
    }
    let shapes = [many.x.to_vec(), many.y().to_vec()];
    let dw = run_op::<f64>(op, &[&x, &dy], &shapes, &[one.w.to_vec()]);
    assert_close(&dw[0], &expected, 1e-11, 1e-11);
}

#[test]
fn threads_change_no_bit() {
    same_bits_in_pools(Case { x: [67, 4, 9, 9], w: [6, 2, 3, 3], ..cases()[4] });
    same_bits_in_pools(Case { x: [67, 4, 9, 9], w: [4, 1, 3, 3], ..cases()[4] });
    same_bits_in_pools(Case { x: [67, 32, 9, 9], w: [80, 32, 3, 3], ..winograd_cases()[0] });
}

#[track_caller]
fn same_bits_in_pools(case: Case) {
    let case =
        Case { geometry: ConvGeometry { groups: case.x[1] / case.w[1], ..case.geometry }, ..case };
    let geometry = case.geometry;
    let (x, w, dy) = (normal(1, len(case.x)), normal(2, len(case.w)), normal(3, len(case.y())));
    let (xs, ws, ys) = (case.x.to_vec(), case.w.to_vec(), case.y().to_vec());
    in_pools(|| {
        let mut all = forward::<f32>(case, &x, &w, &vec![0.5; case.w[0]]);
        let shapes = [ys.clone(), ws.clone()];
        let op = Op::Conv2dInputGrad { geometry };
        all.extend(&run_op::<f32>(op, &[&dy, &w], &shapes, std::slice::from_ref(&xs))[0]);
        let shapes = [xs.clone(), ys.clone()];
        let op = Op::Conv2dWeightGrad { geometry };
        all.extend(&run_op::<f32>(op, &[&x, &dy], &shapes, std::slice::from_ref(&ws))[0]);
        all
    });
}
