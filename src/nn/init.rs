//! Initial values: a pure function of the seed and a variable's name, so neither threads nor the
//! other variables of a model can change them.

use crate::graph::Init;
use crate::graph::plan::Variable;
use crate::rng::Rng;

/// The 64-bit FNV-1a hash of a name (Fowler, Noll and Vo, 1991): stable across versions and platforms.
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The initial values of a variable, in PyTorch's layout.
pub fn initial_values(variable: &Variable, seed: u64) -> Vec<f32> {
    let len = variable.range().len();
    let mut rng = Rng::keyed(&[seed, name_hash(&variable.name)]);
    match variable.init {
        Init::Constant(value) => vec![value; len],
        Init::Uniform { bound } => {
            let bound = f64::from(bound);
            (0..len).map(|_| rng.range(-bound, bound) as f32).collect()
        }
        Init::Normal { std } => (0..len).map(|_| (f64::from(std) * rng.normal()) as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, len: usize, init: Init) -> Variable {
        Variable { name: name.into(), shape: vec![len], offset: 64, init }
    }

    #[test]
    fn values_depend_on_seed_and_name() {
        let of =
            |name, seed| initial_values(&variable(name, 9, Init::Uniform { bound: 0.5 }), seed);
        assert_eq!(of("a", 1), of("a", 1));
        assert_ne!(of("a", 1), of("b", 1));
        assert_ne!(of("a", 1), of("a", 2));
    }

    #[test]
    fn distributions_have_their_moments() {
        let n = 40_000;
        let moments = |init| {
            let x = initial_values(&variable("w", n, init), 3);
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let var = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
            let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
            (mean, var, peak)
        };
        let (mean, var, peak) = moments(Init::Uniform { bound: 0.3 });
        assert!(mean.abs() < 0.005 && (var - 0.03).abs() < 0.001, "{mean} {var}");
        assert!(peak <= 0.3 && peak > 0.299, "{peak}");
        let (mean, var, _) = moments(Init::Normal { std: 0.02 });
        assert!(mean.abs() < 0.001 && (var - 0.0004).abs() < 0.00001, "{mean} {var}");
        assert_eq!(moments(Init::Constant(1.0)), (1.0, 1.0, 1.0));
    }

    /// `tests/parity/make_reference.py` makes the same weights; these numbers are its own.
    #[test]
    fn the_reference_script_agrees() {
        let values = initial_values(&variable("net.0.bias", 3, Init::Uniform { bound: 0.25 }), 7);
        assert_eq!(values, [-0.245_409_62, -0.230_044_83, -0.074_803_77]);
    }
}
