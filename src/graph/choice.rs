//! How the next token of a text is chosen, as a device reads it.

/// Words of a [`TokenChoice`].
pub const CHOICE_LEN: usize = 8;

/// How a token is chosen, see [`Op::ChooseToken`](super::op::Op::ChooseToken). The default takes the most probable one.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct TokenChoice {
    /// What logits are divided by; at 0 the most probable token is taken, of several the first.
    pub temperature: f32,
    /// Only so many of the most probable tokens; 0: all.
    pub top_k: u32,
    /// Only the most probable tokens that together reach this probability (Holtzman et al., 2020); 1: all.
    pub top_p: f32,
    /// Only tokens of at least this share of the highest probability; 0: all.
    pub min_p: f32,
    /// What the positive logits of tokens that were there before are divided by, and the negative ones multiplied (Keskar
    /// et al., 2019); 1: nothing.
    pub repetition_penalty: f32,
    /// The share of the probability of what is left, in the order of tokens, at which the token is taken, from 0 up to,
    /// not including, 1.
    pub drawn: f32,
    /// Nothing yet.
    pub reserved: [u32; 2],
}

const _: () = assert!(size_of::<TokenChoice>() == 4 * CHOICE_LEN);

impl Default for TokenChoice {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            drawn: 0.0,
            reserved: [0; 2],
        }
    }
}
