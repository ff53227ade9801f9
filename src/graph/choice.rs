//! How the next token of a text is chosen, as a device reads it, and what it tells of the choice.

/// Words of a [`TokenChoice`].
pub const CHOICE_LEN: usize = 11;

/// Of the most probable tokens, so many are told at most: as many as OpenAI's API does.
pub const ALTERNATIVES_MAX: usize = 20;

/// Numbers that are told of a choice: the token and the logarithm of its probability, and as much of each alternative.
pub const CHOSEN_LEN: usize = 2 + 2 * ALTERNATIVES_MAX;

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
    /// What is taken from the logit of each token that was made before.
    pub presence_penalty: f32,
    /// What is taken from the logit of a token for each time that it was made before.
    pub frequency_penalty: f32,
    /// How many of the most probable tokens are told as well, at most [`ALTERNATIVES_MAX`].
    pub alternatives: u32,
    /// Whose row of counts tells what was made before. It is neither read nor written without one of the two penalties.
    pub place: u32,
    /// Whether nothing was made before, whatever the counts say: 1 or 0.
    pub is_first: u32,
}

const _: () = assert!(size_of::<TokenChoice>() == 4 * CHOICE_LEN);

impl TokenChoice {
    /// Whether it depends on how often each token was made.
    pub fn counts(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

impl Default for TokenChoice {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            drawn: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            alternatives: 0,
            place: 0,
            is_first: 0,
        }
    }
}
