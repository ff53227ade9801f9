//! The operations: what each computes, and which tensors it binds in which order.
//!
//! One operation is one shader in `shaders/`, one twin in `cpu/`, one name. A kernel binds the
//! inputs and then the outputs, in the order written here. Images are `[n, c, h, w]`.

pub use super::attending::Attending;
use crate::batch::DType;

/// An activation that a kernel can apply to its result before writing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// max(x, 0).
    Relu,
    /// x Φ(x), with the error function, as PyTorch's default (Hendrycks and Gimpel, 2016).
    Gelu,
    /// See [`Op::GeluTanh`].
    GeluTanh,
}

/// Geometry of a convolution: `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Step between windows.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub padding: [usize; 2],
    /// Groups that channels are divided into.
    pub groups: usize,
}

/// Geometry of a pooling window: `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolGeometry {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Padding on each side: never chosen by max pooling, counted as zeros by average pooling.
    pub padding: [usize; 2],
}

/// Which reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The arithmetic mean.
    Mean,
}

/// The rule by which parameters follow gradients. Hyperparameters are fixed for a run; only the
/// learning rate changes from step to step, in the step's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// Stochastic gradient descent, as `torch.optim.SGD` (dampening 0).
    Sgd {
        /// Momentum; 0 keeps no buffer.
        momentum: f32,
        /// Nesterov's form of momentum.
        nesterov: bool,
        /// L2 penalty added to the gradient.
        weight_decay: f32,
    },
    /// Adam (Kingma and Ba, 2015), as `torch.optim.Adam`; with `decoupled` AdamW (Loshchilov and
    /// Hutter, 2019).
    Adam {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// L2 penalty (Adam) or decoupled decay (AdamW).
        weight_decay: f32,
        /// Whether the decay is decoupled from the gradient.
        decoupled: bool,
    },
}

impl UpdateRule {
    /// The same rule without weight decay.
    pub fn without_decay(mut self) -> Self {
        match &mut self {
            UpdateRule::Sgd { weight_decay, .. } | UpdateRule::Adam { weight_decay, .. } => {
                *weight_decay = 0.0;
            }
        }
        self
    }

    /// How many moment arenas it keeps (0 to 2).
    pub fn moments(&self) -> usize {
        match self {
            UpdateRule::Sgd { momentum, .. } => usize::from(*momentum != 0.0),
            UpdateRule::Adam { .. } => 2,
        }
    }
}

/// How Muon moves a matrix (Jordan et al., 2024), as `torch.optim.Muon`: by the direction of its momentum with all singular
/// values brought near 1, in [`MUON_STEPS`] steps of [`Op::NewtonSchulz`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonRule {
    /// Share of the average of gradients that stays.
    pub momentum: f32,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Decay, apart from the gradient.
    pub weight_decay: f32,
}

/// Steps of [`Op::NewtonSchulz`] of an update.
pub const MUON_STEPS: usize = 5;
/// The factors of [`Op::NewtonSchulz`]: those by which singular values near 0 grow fastest, all that begin in 0 to 1 ending
/// between about 0.7 and 1.2 (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024).
pub const NEWTON_SCHULZ: [f32; 3] = [3.4445, -4.775, 2.0315];
/// The least norm that [`Op::MuonNormalize`] divides by.
pub const MUON_EPS: f32 = 1e-7;

/// How a batch is mixed with itself, see [`Op::MixDraw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MixKind {
    /// Values are averaged (Zhang et al., 2018).
    Mixup,
    /// A box of one image is pasted into the other (Yun et al., 2019).
    Cutmix,
    /// One of the two, with equal probability.
    Either,
}

/// Entries of a table that [`Op::MixDraw`] draws one of, all with equal probability.
pub const MIX_QUANTILES: usize = 1024;
/// Length of the tensor that [`Op::MixDraw`] makes.
pub const MIX_LEN: usize = 8;
/// Distinguishes the draws of [`Op::MixDraw`] from those of dropout.
pub const MIX_SALT: u32 = 0x6d69_7865;

/// Partial sums that [`Op::GradSquares`] writes for each stretch of gradients.
pub const GRAD_PARTIALS: usize = 256;
/// Length of the optimizer's control tensor, see [`Op::OptimizerControl`].
pub const CONTROL_LEN: usize = 10;
/// The loss scale with which mixed precision begins, as a power of two: 65536, as PyTorch's `GradScaler`.
pub const LOSS_SCALE_LOG2: i32 = 16;
/// The least loss scale as a power of two: at 1, gradients that overflow are too large by themselves.
pub const LOSS_SCALE_LOG2_MIN: i32 = 0;
/// The largest loss scale as a power of two: above it no gradient of use is still too small for `f16`,
/// whose least number is 2⁻²⁴.
pub const LOSS_SCALE_LOG2_MAX: i32 = 24;
/// Updates applied in a row after which the loss scale doubles, as in PyTorch's `GradScaler`.
pub const LOSS_SCALE_GROWTH_INTERVAL: u32 = 2000;
/// Length of the metrics tensor, see [`Op::StepMetrics`].
pub const METRICS_LEN: usize = 4;

/// One operation. Bindings are written `inputs | outputs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// `x u8[n, c, ..], scale[c], shift[c] | y[n, c, ..]`: y = x · scale + shift.
    NormalizeU8,
    /// `x u8[n, c, h, w], scale[c], shift[c], framings u32[n, 14] | y[n, c, h, w]`: [`Op::NormalizeU8`] of each image as its
    /// [`Framing`](crate::framing::Framing) shows it.
    AugmentU8,
    /// `a, b, [bias[n]] | y[m, n]`: y = activation(op(a) op(b) + bias), where op transposes if asked.
    /// `a` is [m, k] or, transposed, [k, m]; `b` is [k, n] or [n, k].
    MatMul {
        /// Whether `a` is stored transposed.
        transpose_a: bool,
        /// Whether `b` is stored transposed.
        transpose_b: bool,
        /// Whether a bias of length n is bound and added.
        bias: bool,
        /// Applied last.
        activation: Activation,
    },
    /// `x[n, c, h, w], w[o, c/groups, kh, kw], [bias[o]] | y[n, o, oh, ow]`: cross-correlation.
    Conv2d {
        /// Stride, padding, groups.
        geometry: ConvGeometry,
        /// Whether a bias of length o is bound and added.
        bias: bool,
        /// Applied last.
        activation: Activation,
    },
    /// `dy[n, o, oh, ow], w[o, c/groups, kh, kw] | dx[n, c, h, w]`.
    Conv2dInputGrad {
        /// Stride, padding, groups.
        geometry: ConvGeometry,
    },
    /// `x[n, c, h, w], dy[n, o, oh, ow] | dw[o, c/groups, kh, kw]`.
    Conv2dWeightGrad {
        /// Stride, padding, groups.
        geometry: ConvGeometry,
    },
    /// `x[n, c, h, w] | y[n, c, oh, ow], index u32[n, c, oh, ow]`: the index is `row * w + column` of
    /// the first maximum in its input plane.
    MaxPool2d {
        /// Window, stride, padding.
        geometry: PoolGeometry,
    },
    /// `dy[n, c, oh, ow], index u32[n, c, oh, ow] | dx[n, c, h, w]`.
    MaxPool2dGrad {
        /// Window, stride, padding.
        geometry: PoolGeometry,
    },
    /// `x[n, c, h, w] | y[n, c, oh, ow]`: padding counts as zeros, as in PyTorch's default.
    AvgPool2d {
        /// Window, stride, padding.
        geometry: PoolGeometry,
    },
    /// `dy[n, c, oh, ow] | dx[n, c, h, w]`.
    AvgPool2dGrad {
        /// Window, stride, padding.
        geometry: PoolGeometry,
    },
    /// `x[n, c, ..], bias[c] | y[n, c, ..]`.
    Bias,
    /// `dy[n, c, ..] | db[c]`: the sum over all but the second dimension.
    BiasGrad,
    /// `x | y`.
    Relu,
    /// `dy, y | dx`: dy where y > 0.
    ReluGrad,
    /// `x | y`: see [`Activation::Gelu`].
    Gelu,
    /// `dy, x | dx`.
    GeluGrad,
    /// `x | y`: x σ(2u) with u = √(2/π) (x + 0.044715 x³), which is ½ x (1 + tanh u): gelu as GPT-2 approximates it,
    /// `torch.nn.GELU("tanh")`.
    GeluTanh,
    /// `dy, x | dx`.
    GeluTanhGrad,
    /// `gate, up | y`: y = gate σ(gate) · up, the gated unit of LLaMA's hidden layers (Shazeer, "GLU Variants Improve
    /// Transformer", 2020).
    SwiGlu,
    /// `dy, gate, up | dgate, dup`.
    SwiGluGrad,
    /// `a, b | y`: same shapes.
    Add,
    /// `a, b, y | dx`: a + b where y > 0, which is [`Op::ReluGrad`] of the gradients of two branches.
    AddReluGrad,
    /// `a, b | y`: same shapes.
    Mul,
    /// `x | y`: y = factor · x.
    Scale {
        /// The factor.
        factor: f32,
    },
    /// `x | y`: the same numbers in the type of `y`.
    Cast,
    /// `dx, control[10] | y`: y = dx times the loss scale that [`Op::OptimizerControl`] keeps (Micikevicius
    /// et al., 2018, section 3.2).
    LossScale,
    /// `x[outer, len, inner] | y[outer, inner]`: reduces one dimension, which disappears.
    Reduce {
        /// Sum or mean.
        reduction: Reduction,
        /// The dimension that disappears.
        axis: usize,
    },
    /// `x[outer, inner] | y[outer, len, inner]`: repeats x along a new dimension, times a factor.
    Broadcast {
        /// Where the new dimension stands.
        axis: usize,
        /// Its length.
        len: usize,
        /// The factor.
        factor: f32,
    },
    /// `a[.., k, ..], b[.., l, ..] | y[.., k + l, ..]`: one after the other along a dimension.
    Concat {
        /// The dimension.
        axis: usize,
    },
    /// `x[.., whole, ..] | y[.., len, ..]`: elements `start..start + len` along a dimension.
    Slice {
        /// The dimension.
        axis: usize,
        /// The first element.
        start: usize,
        /// How many.
        len: usize,
    },
    /// `x[.., k, ..] | y[.., len, ..]`: x from `start` on along a dimension, zeros before and behind it.
    Unslice {
        /// The dimension.
        axis: usize,
        /// Where x stands.
        start: usize,
        /// The dimension's length in y.
        len: usize,
    },
    /// `x[n, a, b] | y[n, b, a]`.
    Transpose,
    /// `ids[..], table[rows, d] | y[.., d]`: for each id, which is `u8`, `u16` or `u32`, that row of the table. Whoever
    /// fills the slot keeps ids below `rows`; a larger one reads the last row.
    Embedding,
    /// `dy[.., d], ids[..] | dtable[rows, d]`: the sum of dy over the places of each id, in their order; rows that no id
    /// names get 0.
    EmbeddingGrad,
    /// `q[n, t, heads · len], k[n, t, kv_heads · len], v[n, t, kv_heads · len], table[rows, len], [positions u32[n, t]] |
    /// qkv[n, t, (heads + 2 kv_heads) · len]`: queries and keys turned by their positions, and values as they are, in one
    /// row for [`Op::Attention`] (Su et al., "RoFormer", 2021). A row of the table holds the cosines of a position's
    /// angles and then their sines; feature i of the first half of a head turns with feature i of the second, as in
    /// Hugging Face's models. Without positions a token stands where it is in its sample; a position of no row has the
    /// last one.
    Rotary {
        /// Whether positions are bound.
        positions: bool,
    },
    /// `dqkv, table[rows, len], [positions u32[n, t]] | dq, dk, dv`.
    RotaryGrad {
        /// As in [`Op::Rotary`].
        positions: bool,
    },
    /// `ids[n, t] | starts u32[n, t], places u32[n, t]`: where the document of each token begins in its sample, and how many
    /// tokens of it come before. A document ends with the token `end`, as in Megatron-LM and torchtitan; the part of
    /// one with which a sample begins counts as one.
    DocumentStarts {
        /// The token that ends a document.
        end: u32,
    },
    /// `qkv[n, t, (heads + 2 kv_heads) · len], [starts u32[n, t]], [header] | y[n, t, heads · len], lse[n, heads, t]`:
    /// softmax(q kᵀ / √len) v of each sample and head (Vaswani et al., 2017). A row of `qkv` holds the queries of all
    /// heads, then keys, then values, as PyTorch's `in_proj` makes them; `lse` is the logarithm of each softmax's sum,
    /// from which the gradient makes the weights again, so that no t × t matrix is kept (Dao et al., 2022).
    ///
    /// `starts` is the first token that each attends to, which only grows within a sample.
    ///
    /// With dropout a weight is 0 with probability p, else that of the softmax / (1 - p). The one of a query for a key
    /// is dropped when `hash[0] < (p · 2³²) as u32`, where `hash` is [`pcg3d`](crate::rng::pcg3d) of these three `u32`:
    /// `[query · t + key, header.step + header.seed_high, header.seed_low ^ salt ^ (header.micro_step * 0x9E3779B9) ^
    /// ((sample · heads + head) * 0x85EBCA6B)]`. So the gradient drops the same.
    Attention(Attending),
    /// `dy[n, t, heads · len], qkv, y[n, t, heads · len], lse[n, heads, t], [starts], [header] | dqkv`.
    AttentionGrad(Attending),
    /// `qkv[rows, (heads + 2 kv_heads) · len], places u32[2, rows] | y[rows, heads · len], cache[n, capacity, 2 kv_heads ·
    /// len]`: [`Op::Attention`] of tokens whose predecessors were seen before. A row is a token at a position of one of n
    /// sequences: places are all positions, then all sequences. The keys and values of each row are first kept in the cache
    /// of its sequence, in the row of its position; it then attends to the rows up to that. A row whose position is not
    /// below the capacity is padding: nothing is kept, and its y is 0.
    CachedAttention {
        /// As in [`Attending`].
        heads: usize,
        /// As in [`Attending`].
        kv_heads: usize,
    },
    /// `logits[rows, vocabulary], choices u32[rows, 11 + ⌈vocabulary / 32⌉] | chosen[rows, 2 + 2 · 20],
    /// counts[texts, vocabulary]`: which token follows, and the logarithm of its probability to the model; then as much of
    /// the most probable tokens, as many as are asked for, of equal ones the first before the others. What is not asked for
    /// is token −1. A choice begins with a [`TokenChoice`](super::choice::TokenChoice); behind it, a bit for each token
    /// tells whether the text has it already. Limits apply in this order: the repetition penalty, the presence and frequency
    /// penalties, the temperature, top-k, top-p, min-p; what equals the last token within a limit is within it. Where one of
    /// those two penalties is set, the row of counts that the choice names tells how often each token was made before, and
    /// the token that follows is counted there; each such row of counts is that of one choice alone. Where a logit is not
    /// finite all tokens are −1, and nothing is counted.
    ChooseToken,
    /// `x[n, c, ..], header | mean[c], var[c], running_mean[c], running_var[c]`: mean and biased
    /// variance over the `header.count` valid samples; the running ones move by `momentum` towards
    /// the mean and the unbiased variance (Ioffe and Szegedy, 2015), unless that is not finite.
    BatchNormStats {
        /// Share of the new value in the running statistics.
        momentum: f32,
    },
    /// `x[n, c, ..], gamma[c], beta[c], mean[c], var[c], [residual[n, c, ..]] | y`.
    BatchNorm {
        /// Added to the variance.
        eps: f32,
        /// Applied last.
        activation: Activation,
        /// Whether a residual is bound and added before the activation (He et al., 2016).
        residual: bool,
    },
    /// `dy, x, gamma[c], beta[c], mean[c], var[c] | dgamma[c], dbeta[c]`.
    BatchNormParamGrad {
        /// Added to the variance.
        eps: f32,
        /// Whether `dy` is the gradient behind a relu, which lets it through where the norm's output,
        /// computed again, is above 0.
        relu: bool,
    },
    /// `dy, x, gamma, beta, mean, var, dgamma, dbeta, header | dx`: rows from `header.count` on get 0.
    BatchNormInputGrad {
        /// Added to the variance.
        eps: f32,
        /// As in [`Op::BatchNormParamGrad`].
        relu: bool,
    },
    /// `x[n, c, ..], gamma[c], beta[c], header, [residual[n, c, ..]] | y, mean[c], var[c], running_mean[c], running_var[c]`:
    /// [`Op::BatchNormStats`], and [`Op::BatchNorm`] by these statistics.
    BatchNormTrain {
        /// As in [`Op::BatchNormStats`].
        momentum: f32,
        /// Added to the variance.
        eps: f32,
        /// As in [`Op::BatchNorm`].
        activation: Activation,
        /// As in [`Op::BatchNorm`].
        residual: bool,
    },
    /// `dy, x, gamma[c], beta[c], mean[c], var[c], header | dx, dgamma[c], dbeta[c]`: [`Op::BatchNormParamGrad`], and
    /// [`Op::BatchNormInputGrad`] by these gradients.
    BatchNormGrad {
        /// Added to the variance.
        eps: f32,
        /// As in [`Op::BatchNormParamGrad`].
        relu: bool,
    },
    /// `x[rows, d], gamma[d], beta[d], [residual[rows, d]] | y, mean[rows], rstd[rows], [sum[rows, d]]` (Ba, Kiros and Hinton,
    /// 2016). With a residual it is the norm of `sum`, which is x + residual.
    LayerNorm {
        /// Added to the variance.
        eps: f32,
        /// Whether a residual is bound and added first, and the sum kept.
        residual: bool,
    },
    /// `dy, x, gamma, mean[rows], rstd[rows], [residual[rows, d]] | dx`: with a residual, which is what else contributes to
    /// the gradient of x, the sum of both.
    LayerNormInputGrad {
        /// Whether a residual is bound and added.
        residual: bool,
    },
    /// `dy, x, mean[rows], rstd[rows] | dgamma[d], dbeta[d]`.
    LayerNormParamGrad,
    /// `x[rows, d], gamma[d], [residual[rows, d]] | y, rstd[rows], [sum[rows, d]]`: y = gamma · x / √(mean of x² + eps)
    /// (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019), with a residual of x + residual.
    RmsNorm {
        /// Added to the mean of squares.
        eps: f32,
        /// As in [`Op::LayerNorm`].
        residual: bool,
    },
    /// `dy, x, gamma, rstd[rows], [residual[rows, d]] | dx`.
    RmsNormInputGrad {
        /// As in [`Op::LayerNormInputGrad`].
        residual: bool,
    },
    /// `dy, x, rstd[rows] | dgamma[d]`.
    RmsNormParamGrad,
    /// `x, header | y`: zero with probability p, else x / (1 - p). Element i is dropped when `hash[0] <
    /// (p · 2³²) as u32`, where `hash` is [`pcg3d`](crate::rng::pcg3d) of these three `u32`, all arithmetic
    /// wrapping: `[i, header.step + header.seed_high, header.seed_low ^ salt ^ (header.micro_step *
    /// 0x9E3779B9)]`. So its own gradient is the same operation on dy.
    Dropout {
        /// Probability of zero.
        p: f32,
        /// Distinguishes the dropout layers of a model.
        salt: u32,
    },
    /// `header, table[1024] or [2048] | mix[8]`: draws how the rows of this batch are mixed, each with the one that
    /// mirrors it among the valid rows. Mix is, in order: share λ of a row's own values, 1 where a box is pasted or
    /// else 0, the box's first row, end of its rows, first column, end of its columns, 0, 0.
    ///
    /// With `hash(i)` the [`pcg3d`](crate::rng::pcg3d) of `[i, step + seed_high, seed_low ^ MIX_SALT ^ (micro_step ·
    /// 0x9E3779B9)]`, [`MixKind::Either`] pastes where `hash(0)[0] < 2³¹`. Entry `hash(0)[1] >> 22` of the table is λ,
    /// or of a box the share of each side in units of 2⁻¹⁶; with `Either` the second half of the table is that for
    /// boxes. The box reaches `side · entry >> 17` to both sides of its centre, `(hash(1)[0] >> 16) · height >> 16` and
    /// `(hash(1)[1] >> 16) · width >> 16`, as far as there is image, and λ is the share of the area that is left. All
    /// but this last one is arithmetic of integers, so every device draws the same.
    MixDraw {
        /// What may be drawn.
        kind: MixKind,
        /// Height of the images, below 2¹⁶.
        height: usize,
        /// Width of the images, below 2¹⁶.
        width: usize,
    },
    /// `x[n, ..], mix[8], header | y`: each of the `header.count` valid rows, of which row i is mirrored by row
    /// count - 1 - i, becomes λ x + (1 - λ) mirror, or x with the mirror's box pasted; rows of padding are copied.
    Mix,
    /// `target u32[n], mix[8], header | t[n, c]`: λ q(target) + (1 - λ) q(target of the mirror), where q is 1 for
    /// the class, `smoothing` of it spread over all; 0 in padding.
    SoftTarget {
        /// Share of the target spread evenly over all classes.
        smoothing: f32,
        /// Number of classes c.
        classes: usize,
    },
    /// `logits[n, c], t[n, c], header | loss[n], [dlogits[n, c]]`: -Σ t ln softmax(logits), as PyTorch's
    /// cross-entropy with probabilities; the gradient is that of the mean over the valid rows; 0 in padding.
    SoftCrossEntropy {
        /// Whether the gradient is written.
        gradient: bool,
    },
    /// `logits[n, c], target u32[n], header | loss[n], [dlogits[n, c]]`: softmax and cross-entropy in one;
    /// the gradient is that of the mean over the valid rows; loss and gradient of padding are 0. The rows may be some of a
    /// batch's.
    CrossEntropy {
        /// Share of the target spread evenly over all classes.
        smoothing: f32,
        /// Whether the gradient is written.
        gradient: bool,
        /// Rows of each sample: 1, or of text its tokens. So the first `header.count · per_sample` rows are valid.
        per_sample: usize,
        /// Rows of the batch before these; see [`chunk`](super::chunk).
        first: usize,
    },
    /// `x[n, d], target[n, d], header | loss[n], [dx[n, d]]`: each row's mean squared error; the gradient is
    /// that of the mean over the valid rows.
    MeanSquaredError {
        /// Whether the gradient is written.
        gradient: bool,
    },
    /// `logits[n, c], target u32[n], header | correct[n]`: 1 where the first maximum is the target.
    Accuracy,
    /// `loss[n], [correct[n]], header | metrics[4]`: the sum over samples of the mean losses of their rows, likewise of
    /// correct ones, the number of samples, 0.
    StepMetrics {
        /// Whether `correct` is bound.
        accuracy: bool,
        /// As in [`Op::CrossEntropy`].
        per_sample: usize,
    },
    /// `gradients[len] | partials[256]`: partial sums of squares, each over a fixed share.
    GradSquares,
    /// `partials[256 · stretches] | control[10]`: decides on the update. Control is, in order: 1 - β₁ᵗ, 1 - β₂ᵗ, updates
    /// applied, updates skipped, gradient norm, factor on the gradients, whether to apply (1 or 0),
    /// updates skipped in a row; k, where the loss scale is 2ᵏ times the one at the start; updates applied
    /// since that last changed. A norm that is not finite skips the update and leaves 1 - βᵗ.
    ///
    /// Where the loss is scaled, norm and factor are those of the gradients without it, a skipped update
    /// halves the scale, and [`LOSS_SCALE_GROWTH_INTERVAL`] applied ones in a row double it, as PyTorch's
    /// `GradScaler` does, between 2 to [`LOSS_SCALE_LOG2_MIN`] and 2 to [`LOSS_SCALE_LOG2_MAX`].
    OptimizerControl {
        /// Gradients with a larger global norm are scaled down to it; infinite: never.
        max_norm: f32,
        /// β₁ of Adam, 0 for others.
        beta1: f32,
        /// β₂ of Adam, 0 for others.
        beta2: f32,
        /// Whether the gradients are those of a scaled loss.
        scaled: bool,
    },
    /// `gradients[len], control[10], header | parameters[len], [first[len]], [second[len]]`.
    OptimizerUpdate {
        /// The rule.
        rule: UpdateRule,
    },
    /// `gradients[rows, columns], control[10] | direction[rows, columns], momentum[rows, columns]`: momentum becomes the
    /// average of itself and the gradients, as their factor scales them, and the direction what follows from it; in an
    /// update that is skipped momentum stays.
    MuonMomentum {
        /// Share of the momentum that stays.
        momentum: f32,
        /// Nesterov's form: the direction is the average of momentum and gradients once more.
        nesterov: bool,
    },
    /// `x[rows, columns], squares[1] | y`: x / max(√squares, [`MUON_EPS`]), squares being the sum of those of x, so that no
    /// singular value is above 1.
    MuonNormalize,
    /// `gram[n, n], square[n, n] | polynomial[n, n]`: a I + b gram + c square by the factors [`NEWTON_SCHULZ`]. Where gram is
    /// x xᵀ, and square its product with itself, polynomial · x is a step of Newton and Schulz's iteration towards the
    /// orthogonal matrix nearest to x.
    NewtonSchulz,
    /// `direction[rows, columns], control[10], header | parameters[rows, columns]`: parameters decay by their share of the
    /// learning rate and go that rate times the scale against the direction, unless the update is skipped.
    MuonUpdate {
        /// Decay, apart from the gradient.
        weight_decay: f32,
        /// What the learning rate is multiplied by.
        scale: f32,
    },
    /// `parameters[len], control[10] | average[len]`: average += share · (parameters - average) after an update that
    /// was applied; the first one copies, as `torch.optim.swa_utils.AveragedModel` (Polyak and Juditsky, 1992).
    MovingAverage {
        /// 1 - decay.
        share: f32,
    },
    /// `gradients[len], header | sum[len]`: sum = w · g at micro-step 0, else sum + w · g, where w is
    /// `header.weight`.
    GradAccumulate,
    /// `x[len] | sum[len]`: sum = sum + x.
    AddTo,
}

/// Shape and type of a tensor still to be made.
pub type Signature = (Vec<usize>, DType);

impl Op {
    /// The name of the shader, of the twin, and in traces.
    pub fn name(&self) -> &'static str {
        match self {
            Op::NormalizeU8 => "normalize_u8",
            Op::AugmentU8 => "augment_u8",
            Op::MatMul { .. } => "matmul",
            Op::Conv2d { .. } => "conv2d",
            Op::Conv2dInputGrad { .. } => "conv2d_input_grad",
            Op::Conv2dWeightGrad { .. } => "conv2d_weight_grad",
            Op::MaxPool2d { .. } => "max_pool2d",
            Op::MaxPool2dGrad { .. } => "max_pool2d_grad",
            Op::AvgPool2d { .. } => "avg_pool2d",
            Op::AvgPool2dGrad { .. } => "avg_pool2d_grad",
            Op::Bias => "bias",
            Op::BiasGrad => "bias_grad",
            Op::Relu => "relu",
            Op::ReluGrad => "relu_grad",
            Op::Gelu => "gelu",
            Op::GeluGrad => "gelu_grad",
            Op::GeluTanh => "gelu_tanh",
            Op::GeluTanhGrad => "gelu_tanh_grad",
            Op::Add => "add",
            Op::AddReluGrad => "add_relu_grad",
            Op::Mul => "mul",
            Op::Scale { .. } => "scale",
            Op::Cast => "cast",
            Op::LossScale => "loss_scale",
            Op::Reduce { .. } => "reduce",
            Op::Broadcast { .. } => "broadcast",
            Op::Concat { .. } => "concat",
            Op::Slice { .. } => "slice",
            Op::Unslice { .. } => "unslice",
            Op::Transpose => "transpose",
            Op::Embedding => "embedding",
            Op::EmbeddingGrad => "embedding_grad",
            Op::SwiGlu => "swiglu",
            Op::SwiGluGrad => "swiglu_grad",
            Op::Rotary { .. } => "rotary",
            Op::RotaryGrad { .. } => "rotary_grad",
            Op::DocumentStarts { .. } => "document_starts",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormInputGrad { .. } => "rms_norm_input_grad",
            Op::RmsNormParamGrad => "rms_norm_param_grad",
            Op::Attention { .. } => "attention",
            Op::AttentionGrad { .. } => "attention_grad",
            Op::CachedAttention { .. } => "cached_attention",
            Op::ChooseToken => "choose_token",
            Op::BatchNormStats { .. } => "batch_norm_stats",
            Op::BatchNorm { .. } => "batch_norm",
            Op::BatchNormParamGrad { .. } => "batch_norm_param_grad",
            Op::BatchNormInputGrad { .. } => "batch_norm_input_grad",
            Op::BatchNormTrain { .. } => "batch_norm_train",
            Op::BatchNormGrad { .. } => "batch_norm_grad",
            Op::LayerNorm { .. } => "layer_norm",
            Op::LayerNormInputGrad { .. } => "layer_norm_input_grad",
            Op::LayerNormParamGrad => "layer_norm_param_grad",
            Op::Dropout { .. } => "dropout",
            Op::MixDraw { .. } => "mix_draw",
            Op::Mix => "mix",
            Op::SoftTarget { .. } => "soft_target",
            Op::SoftCrossEntropy { .. } => "soft_cross_entropy",
            Op::CrossEntropy { .. } => "cross_entropy",
            Op::MeanSquaredError { .. } => "mean_squared_error",
            Op::Accuracy => "accuracy",
            Op::StepMetrics { .. } => "step_metrics",
            Op::GradSquares => "grad_squares",
            Op::OptimizerControl { .. } => "optimizer_control",
            Op::OptimizerUpdate { .. } => "optimizer_update",
            Op::MuonMomentum { .. } => "muon_momentum",
            Op::MuonNormalize => "muon_normalize",
            Op::NewtonSchulz => "newton_schulz",
            Op::MuonUpdate { .. } => "muon_update",
            Op::MovingAverage { .. } => "moving_average",
            Op::GradAccumulate => "grad_accumulate",
            Op::AddTo => "add_to",
        }
    }
}
