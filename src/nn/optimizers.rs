//! Optimizers as a config names them; what they compute is [`UpdateRule`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::op::{MuonRule, UpdateRule};

/// An optimizer and its settings. Left out, they are PyTorch's, except for the momentum of SGD: 0.9
/// here, since SGD without momentum is hardly ever meant (PyTorch's default is 0).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent, as `torch.optim.SGD` with dampening 0.
    Sgd {
        /// Share of the previous update that goes on.
        #[serde(default = "momentum")]
        momentum: f64,
        /// Nesterov's form of momentum (Sutskever et al., 2013).
        #[serde(default)]
        nesterov: bool,
        /// L2 penalty added to the gradient.
        #[serde(default)]
        weight_decay: f64,
        /// Whether parameters of one dimension, which are those of norms and biases, decay as well.
        #[serde(default = "yes")]
        decay_norms_and_biases: bool,
    },
    /// Adam (Kingma and Ba, 2015), as `torch.optim.Adam`.
    Adam {
        /// Decay of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Added to the root of the second moment.
        #[serde(default = "eps")]
        eps: f64,
        /// L2 penalty added to the gradient.
        #[serde(default)]
        weight_decay: f64,
        /// Whether parameters of one dimension, which are those of norms and biases, decay as well.
        #[serde(default = "yes")]
        decay_norms_and_biases: bool,
    },
    /// AdamW (Loshchilov and Hutter, 2019), as `torch.optim.AdamW`.
    AdamW {
        /// Decay of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Added to the root of the second moment.
        #[serde(default = "eps")]
        eps: f64,
        /// Decay of the parameters, apart from the gradient.
        #[serde(default = "decay")]
        weight_decay: f64,
        /// Whether parameters of one dimension, which are those of norms and biases, decay as well.
        #[serde(default = "yes")]
        decay_norms_and_biases: bool,
    },
    /// Muon (Jordan et al., 2024) for the matrices of hidden layers, as `torch.optim.Muon` with
    /// `adjust_lr_fn="match_rms_adamw"` computes it in 32 bits, and AdamW for all else: embeddings, the last layer, norms
    /// and biases. Both go by one learning rate, that of AdamW (Liu et al., "Muon is Scalable for LLM Training", 2025).
    Muon {
        /// Share of the average of gradients that stays.
        #[serde(default = "muon_momentum")]
        momentum: f64,
        /// Nesterov's form of momentum.
        #[serde(default = "yes")]
        nesterov: bool,
        /// AdamW's decay of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// AdamW's decay of the second moment.
        #[serde(default = "muon_beta2")]
        beta2: f64,
        /// Added by AdamW to the root of the second moment.
        #[serde(default = "eps")]
        eps: f64,
        /// Decay of all parameters, apart from the gradient.
        #[serde(default = "muon_decay")]
        weight_decay: f64,
        /// Whether parameters of one dimension, which are those of norms and biases, decay as well.
        #[serde(default = "yes")]
        decay_norms_and_biases: bool,
    },
}

fn momentum() -> f64 {
    0.9
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn eps() -> f64 {
    1e-8
}

fn decay() -> f64 {
    0.01
}

fn muon_momentum() -> f64 {
    0.95
}

/// As Moonlight's; others have no default for AdamW beside Muon.
fn muon_beta2() -> f64 {
    0.95
}

fn muon_decay() -> f64 {
    0.1
}

/// As PyTorch, where who wants it otherwise makes groups of parameters.
fn yes() -> bool {
    true
}

impl OptimizerConfig {
    /// The optimizers that have a name.
    pub const NAMES: [&str; 4] = ["sgd", "adam", "adamw", "muon"];

    /// SGD with momentum 0.9.
    pub fn sgd() -> Self {
        OptimizerConfig::Sgd {
            momentum: momentum(),
            nesterov: false,
            weight_decay: 0.0,
            decay_norms_and_biases: true,
        }
    }

    /// Adam with PyTorch's defaults.
    pub fn adam() -> Self {
        OptimizerConfig::Adam {
            beta1: beta1(),
            beta2: beta2(),
            eps: eps(),
            weight_decay: 0.0,
            decay_norms_and_biases: true,
        }
    }

    /// AdamW with PyTorch's defaults.
    pub fn adamw() -> Self {
        let (beta1, beta2, eps) = (beta1(), beta2(), eps());
        OptimizerConfig::AdamW {
            beta1,
            beta2,
            eps,
            weight_decay: decay(),
            decay_norms_and_biases: true,
        }
    }

    /// Muon with PyTorch's defaults, and AdamW with Moonlight's.
    pub fn muon() -> Self {
        OptimizerConfig::Muon {
            momentum: muon_momentum(),
            nesterov: true,
            beta1: beta1(),
            beta2: muon_beta2(),
            eps: eps(),
            weight_decay: muon_decay(),
            decay_norms_and_biases: true,
        }
    }

    /// An optimizer with its defaults, by name.
    ///
    /// # Errors
    /// For a name that is not one of [`NAMES`](Self::NAMES).
    pub fn by_name(name: &str) -> Result<Self> {
        match name {
            "sgd" => Ok(Self::sgd()),
            "adam" => Ok(Self::adam()),
            "adamw" => Ok(Self::adamw()),
            "muon" => Ok(Self::muon()),
            _ => {
                let known = Self::NAMES.join(", ");
                let message = format!("found {name:?}, expected one of {known}");
                Err(Error::config("optimizer", message))
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerConfig::Sgd { .. } => "sgd",
            OptimizerConfig::Adam { .. } => "adam",
            OptimizerConfig::AdamW { .. } => "adamw",
            OptimizerConfig::Muon { .. } => "muon",
        }
    }

    /// Checks that all settings are finite and in range.
    ///
    /// # Errors
    /// Naming the key, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        match *self {
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay, .. } => {
                expect_momentum(momentum, nesterov)?;
                expect_not_negative("weight_decay", weight_decay)
            }
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay, .. }
            | OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay, .. } => {
                expect_adam([beta1, beta2], eps)?;
                expect_not_negative("weight_decay", weight_decay)
            }
            OptimizerConfig::Muon {
                momentum, nesterov, beta1, beta2, eps, weight_decay, ..
            } => {
                expect_momentum(momentum, nesterov)?;
                expect_adam([beta1, beta2], eps)?;
                expect_not_negative("weight_decay", weight_decay)
            }
        }
    }

    /// Whether norms and biases decay as well.
    pub fn decays_norms_and_biases(&self) -> bool {
        match *self {
            OptimizerConfig::Sgd { decay_norms_and_biases, .. }
            | OptimizerConfig::Adam { decay_norms_and_biases, .. }
            | OptimizerConfig::AdamW { decay_norms_and_biases, .. }
            | OptimizerConfig::Muon { decay_norms_and_biases, .. } => decay_norms_and_biases,
        }
    }

    /// What it does to the matrices of hidden layers, where that is not what [`rule`](Self::rule) says.
    pub fn muon_rule(&self) -> Option<MuonRule> {
        let OptimizerConfig::Muon { momentum, nesterov, weight_decay, .. } = *self else {
            return None;
        };
        let (momentum, weight_decay) = (momentum as f32, weight_decay as f32);
        Some(MuonRule { momentum, nesterov, weight_decay })
    }

    /// What it does to parameters that decay.
    pub fn rule(&self) -> UpdateRule {
        let adam = |beta1: f64, beta2: f64, eps: f64, weight_decay: f64, decoupled| {
            let (beta1, beta2, eps) = (beta1 as f32, beta2 as f32, eps as f32);
            UpdateRule::Adam { beta1, beta2, eps, weight_decay: weight_decay as f32, decoupled }
        };
        match *self {
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay, .. } => UpdateRule::Sgd {
                momentum: momentum as f32,
                nesterov,
                weight_decay: weight_decay as f32,
            },
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay, .. } => {
                adam(beta1, beta2, eps, weight_decay, false)
            }
            OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay, .. }
            | OptimizerConfig::Muon { beta1, beta2, eps, weight_decay, .. } => {
                adam(beta1, beta2, eps, weight_decay, true)
            }
        }
    }
}

/// As `f32` it must stay below 1, else bias correction divides by 0.
fn expect_share(key: &str, value: f64) -> Result<()> {
    if value >= 0.0 && (value as f32) < 1.0 {
        return Ok(());
    }
    let message = format!("found {value}, expected 0 up to, not including, 1");
    Err(Error::config(format!("optimizer.{key}"), message))
}

fn expect_momentum(momentum: f64, nesterov: bool) -> Result<()> {
    expect_share("momentum", momentum)?;
    if nesterov && momentum == 0.0 {
        let message = "nesterov needs a momentum above 0, found 0";
        return Err(Error::config("optimizer.nesterov", message).hint("momentum = 0.9"));
    }
    Ok(())
}

fn expect_adam([beta1, beta2]: [f64; 2], eps: f64) -> Result<()> {
    expect_share("beta1", beta1)?;
    expect_share("beta2", beta2)?;
    expect_not_negative("eps", eps)
}

fn expect_not_negative(key: &str, value: f64) -> Result<()> {
    if value >= 0.0 && (value as f32).is_finite() {
        return Ok(());
    }
    let message = format!("found {value}, expected a finite number of at least 0");
    Err(Error::config(format!("optimizer.{key}"), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_gets_pytorchs_defaults() {
        for name in OptimizerConfig::NAMES {
            let named = OptimizerConfig::by_name(name).expect("a known name");
            let read: OptimizerConfig =
                toml::from_str(&format!("type = \"{name}\"")).expect("a type is enough");
            assert_eq!((named, named.name()), (read, name));
            named.validate().expect("defaults are valid");
        }
        assert_eq!(
            OptimizerConfig::adamw().rule(),
            UpdateRule::Adam {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.01,
                decoupled: true
            }
        );
        assert_eq!(
            OptimizerConfig::sgd().rule(),
            UpdateRule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 }
        );
        let muon = MuonRule { momentum: 0.95, nesterov: true, weight_decay: 0.1 };
        assert_eq!(OptimizerConfig::muon().muon_rule(), Some(muon));
        assert_eq!(OptimizerConfig::adamw().muon_rule(), None);
        assert!(OptimizerConfig::by_name("lion").is_err());
        assert!(toml::from_str::<OptimizerConfig>("type = \"sgd\"\nbeta1 = 0.9").is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let sgd = |momentum, nesterov, weight_decay| {
            let config = OptimizerConfig::Sgd {
                momentum,
                nesterov,
                weight_decay,
                decay_norms_and_biases: true,
            };
            config.validate().expect_err("must be refused").to_string()
        };
        assert!(sgd(1.0, false, 0.0).starts_with("config: optimizer.momentum: found 1"));
        assert!(sgd(f64::NAN, false, 0.0).contains("optimizer.momentum"));
        assert!(sgd(0.0, true, 0.0).contains("optimizer.nesterov"));
        assert!(sgd(0.9, false, f64::INFINITY).contains("optimizer.weight_decay"));
        let adam = |beta1, beta2, eps| {
            let config = OptimizerConfig::Adam {
                beta1,
                beta2,
                eps,
                weight_decay: 0.0,
                decay_norms_and_biases: false,
            };
            config.validate().expect_err("must be refused").to_string()
        };
        assert!(adam(-0.1, 0.9, 1e-8).contains("optimizer.beta1"));
        assert!(adam(0.9, 0.999_999_999_99, 1e-8).contains("optimizer.beta2"));
        assert!(adam(0.9, 0.9, f64::NAN).contains("optimizer.eps"));
    }
}
