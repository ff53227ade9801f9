//! Initial values: a pure function of the seed and a variable's name, so neither threads nor the
//! other variables of a model can change them.

use rayon::prelude::*;

use crate::graph::Init;
use crate::graph::plan::Variable;
use crate::rng::Rng;

/// The 64-bit FNV-1a hash of a name (Fowler, Noll and Vo, 1991): stable across versions and platforms.
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The initial values of each variable, in the order of `variables` and each in PyTorch's layout.
pub fn initial_values(variables: &[Variable], seed: u64) -> Vec<Vec<f32>> {
    variables.par_iter().map(|variable| values_of(variable, seed)).collect()
}

/// The initial contents of an arena of `len` elements that holds `variables`; zero between them.
pub fn initial_arena(variables: &[Variable], len: usize, seed: u64) -> Vec<f32> {
    let mut arena = vec![0.0; len];
    for (variable, values) in variables.iter().zip(initial_values(variables, seed)) {
        arena[variable.range()].copy_from_slice(&values);
    }
    arena
}

fn values_of(variable: &Variable, seed: u64) -> Vec<f32> {
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

    fn variable(name: &str, offset: usize, len: usize, init: Init) -> Variable {
        Variable { name: name.into(), shape: vec![len], offset, init }
    }

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let init = Init::Uniform { bound: 0.5 };
        let (a, b) = (variable("a", 0, 9, init), variable("b", 64, 9, init));
        let both = initial_values(&[a.clone(), b.clone()], 1);
        assert_eq!(both[1], initial_values(std::slice::from_ref(&b), 1)[0]);
        assert_ne!(both[0], both[1]);
        assert_ne!(both[0], initial_values(std::slice::from_ref(&a), 2)[0]);
        let arena = initial_arena(&[a, b], 80, 1);
        assert_eq!((&arena[..9], &arena[64..73]), (&both[0][..], &both[1][..]));
        assert!(arena[9..64].iter().chain(&arena[73..]).all(|&x| x == 0.0));
    }

    #[test]
    fn distributions_have_their_moments() {
        let n = 40_000;
        let moments = |init| {
            let x = &initial_values(&[variable("w", 0, n, init)], 3)[0];
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
        let values =
            initial_values(&[variable("net.0.bias", 0, 3, Init::Uniform { bound: 0.25 })], 7);
        assert_eq!(values[0], [-0.245_409_62, -0.230_044_83, -0.074_803_77]);
    }
}
