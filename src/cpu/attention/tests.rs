use super::*;
use crate::batch::StepHeader;
use crate::cpu::testing::{in_pools, run_op_with};
use crate::testing::{assert_close, dot, finite_difference, normal};

/// Samples, tokens, heads, heads of keys, features of a head.
const CASES: [[usize; 5]; 6] = [
    [1, 1, 1, 1, 1],
    [2, 5, 1, 1, 3],
    [1, 65, 3, 3, 4],
    [2, 64, 2, 1, 1],
    [1, 131, 2, 2, 7],
    [2, 67, 6, 2, 3],
];

const HEADER: StepHeader = StepHeader {
    count: 1,
    step: 9,
    seed_low: 0x1234_5678,
    seed_high: 77,
    lr: 0.0,
    micro_step: 3,
    weight: 1.0,
    _pad: 0,
};

/// A case with what it leaves out.
#[derive(Clone)]
struct Attention {
    case: [usize; 5],
    causal: bool,
    starts: Option<Vec<u32>>,
    dropout: f32,
}

/// All cases both ways, within documents, with dropout, and with both.
fn attentions(cases: &[[usize; 5]]) -> Vec<Attention> {
    let mut all = Vec::new();
    for &case in cases {
        let [n, t, ..] = case;
        let starts = (0..n * t).map(|i| start_of(i / t, i % t) as u32).collect::<Vec<_>>();
        for (causal, documents, dropout) in [
            (false, false, 0.0),
            (true, false, 0.0),
            (true, true, 0.0),
            (false, false, 0.4),
            (true, true, 0.3),
        ] {
            let starts = documents.then(|| starts.clone());
            all.push(Attention { case, causal, starts, dropout });
        }
    }
    all
}

/// Documents of all lengths, elsewhere in each sample.
fn start_of(sample: usize, token: usize) -> usize {
    let mut start = 0;
    for len in [2 + sample, 1, 30, 40, 3].into_iter().cycle() {
        if start + len > token {
            return start;
        }
        start += len;
    }
    unreachable!("documents go on for ever")
}

impl Attention {
    fn how(&self) -> Attending {
        let [_, _, heads, kv_heads, _] = self.case;
        let (causal, dropout) = (self.causal, self.dropout);
        let documents = self.starts.is_some();
        Attending { heads, kv_heads, causal, documents, dropout, salt: 5 }
    }

    /// Shapes of qkv, y and lse.
    fn shapes(&self) -> [Vec<usize>; 3] {
        let [n, t, heads, kv_heads, len] = self.case;
        let row = (heads + 2 * kv_heads) * len;
        [vec![n, t, row], vec![n, t, heads * len], vec![n, heads, t]]
    }

    /// dy and qkv.
    fn inputs(&self) -> [Vec<f64>; 2] {
        let [qkv, y, _] = self.shapes().map(|shape| shape.iter().product());
        [normal(1, y), normal(2, qkv)]
    }

    fn run<T: Real>(
        &self,
        op: Op,
        inputs: &[&[f64]],
        shapes: &[Vec<usize>],
        outputs: &[Vec<usize>],
    ) -> Vec<Vec<T>> {
        let mut shapes = shapes.to_vec();
        let index = self.starts.as_deref().map(|starts| {
            shapes.push(vec![self.case[0], self.case[1]]);
            starts
        });
        run_op_with(op, inputs, index, &shapes, outputs, &HEADER)
    }

    fn forward<T: Real>(&self, qkv: &[f64]) -> Vec<Vec<T>> {
        let [qkv_shape, y, lse] = self.shapes();
        self.run(Op::Attention(self.how()), &[qkv], &[qkv_shape], &[y, lse])
    }

    fn backward<T: Real>(&self, dy: &[f64], qkv: &[f64]) -> Vec<T> {
        let [qkv_shape, y_shape, lse_shape] = self.shapes();
        let [y, lse] = self.naive(qkv);
        let shapes = [y_shape.clone(), qkv_shape.clone(), y_shape, lse_shape];
        let op = Op::AttentionGrad(self.how());
        self.run(op, &[dy, qkv, &y, &lse], &shapes, &[qkv_shape]).remove(0)
    }

    /// Result and log-sum-exp by plain loops.
    fn naive(&self, qkv: &[f64]) -> [Vec<f64>; 2] {
        let [n, t, heads, kv_heads, len] = self.case;
        let (d, row) = (heads * len, (heads + 2 * kv_heads) * len);
        let (mut y, mut lse) = (vec![0.0; n * t * d], vec![0.0; n * heads * t]);
        let threshold = (f64::from(self.dropout) * 4_294_967_296.0) as u32;
        let stream = 0x1234_5678u32 ^ 5 ^ 3u32.wrapping_mul(0x9e37_79b9);
        for (sample, head) in (0..n).flat_map(|n| (0..heads).map(move |head| (n, head))) {
            let shared = head / (heads / kv_heads);
            let columns = [head, heads + shared, heads + kv_heads + shared];
            let at =
                |part: usize, token, i| qkv[(sample * t + token) * row + columns[part] * len + i];
            let pair = (sample * heads + head) as u32;
            for query in 0..t {
                let first = self.starts.as_ref().map_or(0, |s| s[sample * t + query] as usize);
                let keys = first..if self.causal { query + 1 } else { t };
                let scores: Vec<f64> = keys
                    .clone()
                    .map(|key| (0..len).map(|i| at(0, query, i) * at(1, key, i)).sum::<f64>())
                    .map(|score| (score / (len as f64).sqrt()).exp())
                    .collect();
                let sum: f64 = scores.iter().sum();
                lse[(sample * heads + head) * t + query] = sum.ln();
                for (key, score) in keys.zip(&scores) {
                    let stream = stream ^ pair.wrapping_mul(0x85eb_ca6b);
                    let hash = pcg3d([(query * t + key) as u32, 9 + 77, stream])[0];
                    if hash < threshold {
                        continue;
                    }
                    let weight = score / sum / (1.0 - f64::from(self.dropout));
                    for i in 0..len {
                        y[(sample * t + query) * d + head * len + i] += weight * at(2, key, i);
                    }
                }
            }
        }
        [y, lse]
    }
}

#[test]
fn forward_matches_plain_loops() {
    for attention in attentions(&CASES) {
        let [_, qkv] = attention.inputs();
        let expected = attention.naive(&qkv);
        for (found, expected) in attention.forward::<f64>(&qkv).iter().zip(&expected) {
            assert_close(found, expected, 1e-12, 1e-12);
        }
        for (found, expected) in attention.forward::<f32>(&qkv).iter().zip(&expected) {
            assert_close(found, expected, 1e-5, 1e-5);
        }
    }
}

#[test]
fn gradients_match_finite_differences_of_the_plain_loops() {
    for attention in attentions(&[[1, 1, 1, 1, 1], [2, 5, 1, 1, 3], [1, 7, 4, 2, 2]]) {
        let [dy, qkv] = attention.inputs();
        let expected = finite_difference(&qkv, |x| dot(&attention.naive(x)[0], &dy));
        assert_close(&attention.backward::<f64>(&dy, &qkv), &expected, 1e-8, 1e-7);
    }
}

/// Over several blocks, where finite differences of plain loops would take minutes: along one direction.
#[test]
fn gradients_of_many_tokens_match_along_a_direction() {
    for attention in attentions(&CASES[4..]) {
        let [dy, qkv] = attention.inputs();
        let step = normal(3, qkv.len());
        let along = |h: f64| {
            let moved: Vec<f64> = qkv.iter().zip(&step).map(|(x, s)| x + h * s).collect();
            dot(&attention.naive(&moved)[0], &dy)
        };
        let expected = (along(1e-5) - along(-1e-5)) / 2e-5;
        let gradient = attention.backward::<f64>(&dy, &qkv);
        assert_close(&[dot(&gradient, &step)], &[expected], 1e-7, 1e-7);
        let single: Vec<f32> = attention.backward(&dy, &qkv);
        assert_close(&single, &gradient, 3e-5, 3e-5);
    }
}

#[test]
fn dropout_drops_its_share_of_weights() {
    // Values of 1 make of each result the weights that are left.
    let [n, t, heads] = [2, 40, 3];
    let attention =
        Attention { case: [n, t, heads, heads, 1], causal: false, starts: None, dropout: 0.25 };
    let qkv: Vec<f64> = (0..n * t * 3 * heads).map(|i| f64::from(i % 9 >= 6)).collect();
    let y = attention.forward::<f64>(&qkv).remove(0);
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    // Of 40 weights that are all the same, those left are a whole number.
    assert!(y.iter().all(|y| (y * 0.75 * 40.0 - (y * 0.75 * 40.0).round()).abs() < 1e-9));
    let different: std::collections::HashSet<u64> = y.iter().map(|y| y.to_bits()).collect();
    assert!(different.len() > 8, "{different:?}");
}

#[test]
fn scores_of_any_size_are_finite() {
    let attention = Attention { case: [1, 3, 1, 1, 2], causal: false, starts: None, dropout: 0.0 };
    let qkv: Vec<f64> = attention.inputs()[1].iter().map(|x| 1e4 * x).collect();
    for found in attention.forward::<f32>(&qkv) {
        assert!(found.iter().all(|x| x.is_finite()), "{found:?}");
    }
}

#[test]
fn threads_change_no_bit() {
    for attention in attentions(&[[3, 70, 2, 2, 5], [3, 70, 4, 2, 5]]) {
        let [dy, qkv] = attention.inputs();
        in_pools(|| [attention.forward(&qkv).concat(), attention.backward(&dy, &qkv)].concat());
    }
}
