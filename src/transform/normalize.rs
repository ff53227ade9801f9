//! The mean and deviation that inputs are normalised by.

use serde::{Deserialize, Serialize};

/// Subtract a mean and divide by a deviation, channel by channel. Images travel as raw bytes and are normalised on the
/// device, so this is a setting of the data rather than work for the host: in a list of transforms it means the keys
/// `mean` and `std` of [`DataConfig`](crate::source::DataConfig), for training and held-out images alike, wherever in
/// the list it stands; see [`RunConfig::settle`](crate::RunConfig::settle).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// Mean of each channel after division by 255; one value stands for all channels.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, likewise.
    pub std: Vec<f32>,
}
