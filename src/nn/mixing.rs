//! Mixup and cutmix: every sample of a training batch is mixed with another of the same batch, and so are their
//! targets. All of it happens on the device, see [`Op::MixDraw`].

use super::beta::midpoint_quantiles;
use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::graph::op::{MIX_QUANTILES, MixKind, Op};
use crate::graph::{Graph, TensorId};

/// Largest α: from here on every batch would be mixed half and half.
const ALPHA_MAX: f64 = 1000.0;

/// Which mixing goes on in training. With both, each batch gets one of them, with equal probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mixing {
    /// α of mixup (Zhang et al., 2018): the samples' values are averaged, with a share from Beta(α, α).
    pub mixup: Option<f64>,
    /// α of cutmix (Yun et al., 2019): a box of one image is pasted into the other, over a share from
    /// Beta(α, α) of its area.
    pub cutmix: Option<f64>,
}

/// A batch that was mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixed {
    /// The samples.
    pub x: TensorId,
    /// How they were mixed: the output of [`Op::MixDraw`].
    pub mix: TensorId,
}

impl Mixing {
    /// Checks the ranges of both α.
    ///
    /// # Errors
    /// Naming the flag, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        for (flag, alpha) in [("--mixup", self.mixup), ("--cutmix", self.cutmix)] {
            if let Some(alpha) = alpha.filter(|&alpha| !(alpha > 0.0 && alpha <= ALPHA_MAX)) {
                let message =
                    format!("found {alpha}, expected a number above 0 and up to {ALPHA_MAX}");
                return Err(Error::config(flag, message).hint(format!("{flag} 0.2")));
            }
        }
        Ok(())
    }

    /// Checks that samples of `spec` can be mixed so.
    ///
    /// # Errors
    /// When targets are no classes, or boxes would be cut out of what is no image.
    pub fn validate_for(&self, spec: &SampleSpec) -> Result<()> {
        let Some(kind) = self.kind() else { return Ok(()) };
        let flag = if kind == MixKind::Cutmix { "--cutmix" } else { "--mixup" };
        if !matches!(spec.target, TargetSpec::Class { .. }) {
            let message = "mixes classes, and the data set has values or tokens";
            return Err(Error::config(flag, message).hint(format!("leaving out {flag}")));
        }
        if kind != MixKind::Mixup && spec.input_shape.len() != 3 {
            let message = format!(
                "cuts boxes out of images, and a sample has shape {:?}, expected [channels, height, width]",
                spec.input_shape
            );
            return Err(Error::config("--cutmix", message).hint("--mixup 0.2"));
        }
        Ok(())
    }

    fn kind(&self) -> Option<MixKind> {
        match (self.mixup, self.cutmix) {
            (None, None) => None,
            (Some(_), None) => Some(MixKind::Mixup),
            (None, Some(_)) => Some(MixKind::Cutmix),
            (Some(_), Some(_)) => Some(MixKind::Either),
        }
    }

    /// Adds the mixing of samples `x` (`f32[n, ..]`, normalised) under the scope `mixing`; nothing where none goes
    /// on.
    ///
    /// # Errors
    /// When `x` has a shape or type that cannot be mixed so.
    pub fn build(&self, graph: &mut Graph, x: TensorId) -> Result<Option<Mixed>> {
        let Some(kind) = self.kind() else { return Ok(None) };
        let outer = graph.scope().to_string();
        graph.set_scope("mixing");
        let mixed = self.build_scoped(graph, x, kind);
        graph.set_scope(outer);
        mixed.map(Some)
    }

    fn build_scoped(&self, graph: &mut Graph, x: TensorId, kind: MixKind) -> Result<Mixed> {
        let tensor = graph.tensor(x);
        if tensor.dtype != DType::F32 {
            let message = format!("mixes numbers, found {:?}", tensor.dtype);
            return Err(Error::graph("mixing", message).hint("samples of bytes or of f32"));
        }
        let (height, width) = match (kind, &tensor.shape[..]) {
            (MixKind::Mixup, _) => (1, 1),
            (_, &[_, _, height, width]) => (height, width),
            (_, shape) => {
                let message = format!("cutmix takes images [n, c, height, width], found {shape:?}");
                return Err(Error::graph("mixing", message).hint("mixup"));
            }
        };
        let table = graph.constant("quantiles", self.table());
        let header = graph.header();
        let mix = graph.push_one(Op::MixDraw { kind, height, width }, &[header, table])?;
        let x = graph.push_one(Op::Mix, &[x, mix, header])?;
        Ok(Mixed { x, mix })
    }

    /// What [`Op::MixDraw`] draws from.
    fn table(&self) -> Vec<f32> {
        let quantiles = |alpha| midpoint_quantiles(alpha, MIX_QUANTILES).into_iter();
        let shares = self.mixup.into_iter().flat_map(quantiles);
        let sides = self.cutmix.into_iter().flat_map(quantiles);
        // A box of area 1 - λ has sides √(1 - λ), here in units of 2⁻¹⁶ so that they are whole numbers.
        let sides = sides.map(|share| ((1.0 - share).sqrt() * 65536.0).round());
        shares.chain(sides).map(|x| x as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Role;

    const BOTH: Mixing = Mixing { mixup: Some(0.2), cutmix: Some(1.0) };

    fn spec(input_shape: &[usize], target: TargetSpec) -> SampleSpec {
        SampleSpec { input_shape: input_shape.to_vec(), input_dtype: DType::F32, target }
    }

    #[test]
    fn nothing_is_added_where_nothing_is_mixed() {
        let mut graph = Graph::new();
        let x = graph.add_tensor("x", &[4, 3], DType::F32, Role::Input);
        assert_eq!(Mixing::default().build(&mut graph, x).expect("fits"), None);
        assert!(graph.nodes.is_empty());
    }

    #[test]
    fn shares_and_whole_sides_stand_in_the_table() {
        let table = BOTH.table();
        assert_eq!(table.len(), 2 * MIX_QUANTILES);
        let (shares, sides) = table.split_at(MIX_QUANTILES);
        assert!(shares.iter().all(|x| (0.0..=1.0).contains(x)));
        assert!(sides.iter().all(|x| x.fract() == 0.0 && (0.0..=65536.0).contains(x)));
        // Beta(1, 1) is uniform.
        let middle = (1.0 - (512.5f64 / 1024.0)).sqrt() * 65536.0;
        assert_eq!(f64::from(sides[512]), middle.round());
        let mixup = Mixing { cutmix: None, ..BOTH };
        assert_eq!(mixup.table(), shares);
    }

    #[test]
    fn what_cannot_be_mixed_is_refused() {
        let classes = TargetSpec::Class { classes: 3 };
        let image = spec(&[3, 8, 8], classes.clone());
        BOTH.validate_for(&image).expect("images of classes");
        let refusal = |mixing: Mixing, spec: &SampleSpec| {
            mixing.validate_for(spec).expect_err("must be refused").to_string()
        };
        let table = spec(&[7], classes);
        assert!(refusal(BOTH, &table).contains("--cutmix: cuts boxes out of images"));
        Mixing { cutmix: None, ..BOTH }.validate_for(&table).expect("rows can be averaged");
        let values = spec(&[3, 8, 8], TargetSpec::Values { len: 2 });
        assert!(refusal(BOTH, &values).contains("--mixup: mixes classes"));
        Mixing::default().validate_for(&values).expect("nothing to mix");

        let mut graph = Graph::new();
        let x = graph.add_tensor("x", &[4, 3], DType::F32, Role::Input);
        assert!(BOTH.build(&mut graph, x).expect_err("no image").to_string().contains("cutmix"));
        let bytes = graph.add_tensor("x", &[4, 3, 2, 2], DType::U8, Role::Input);
        assert!(BOTH.build(&mut graph, bytes).expect_err("bytes").to_string().contains("U8"));
    }

    #[test]
    fn alphas_out_of_range_name_their_flag() {
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY, 1001.0] {
            for (flag, mixing) in [
                ("--mixup", Mixing { mixup: Some(alpha), cutmix: None }),
                ("--cutmix", Mixing { mixup: Some(1.0), cutmix: Some(alpha) }),
            ] {
                let error = mixing.validate().expect_err("must be refused").to_string();
                assert!(error.starts_with(&format!("config: {flag}: found {alpha}, ")), "{error}");
            }
        }
        BOTH.validate().expect("usual values");
    }
}
