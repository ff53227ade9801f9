//! Sums over the elements of a channel, cut into tiles of one workgroup each: the form for GPUs, which need
//! many loads on their way at once. See `shaders/shared/channel_tiles.wgsl`.

use super::{Constants, by_four, channels, fold};
use crate::gpu::kernel::{Binding, DeviceCaps, Dispatch, Shader};

/// Invocations of a workgroup; `shared/channel_tiles.wgsl` counts on it.
pub(super) const WORKGROUP: u32 = 256;

/// Numbers of an invocation: enough to hide how long a load takes, few enough for registers.
const EACH: usize = 16;

/// Numbers of a tile.
pub(super) const NUMBERS: usize = WORKGROUP as usize * EACH;

/// In planes smaller than this, neighbouring invocations would read far apart.
const PLANE_MIN: usize = 16;

/// How the channels of a tensor are cut.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    dims: [usize; 3],
    /// Tiles of a channel.
    pub(super) count: usize,
    /// Whether an element is four numbers.
    pub(super) four: bool,
}

impl Tiles {
    /// The tiles for a tensor of this shape, where they suit it and the device.
    pub(super) fn of(shape: &[usize], caps: &DeviceCaps) -> Option<Self> {
        let dims @ [rows, _, plane] = channels(shape);
        let suits = !caps.software && caps.max_invocations >= WORKGROUP && plane >= PLANE_MIN;
        let count = (rows * plane).div_ceil(NUMBERS);
        suits.then(|| Self { dims, count, four: by_four(plane) })
    }

    /// How many tiles, and partial results, of all channels.
    pub(super) fn total(self) -> usize {
        self.count * self.dims[1]
    }

    /// How many channels there are.
    pub(super) fn channels(self) -> usize {
        self.dims[1]
    }

    pub(super) fn constants(self) -> Constants {
        let [rows, channels, plane] = self.dims;
        [
            ("ROWS", rows),
            ("CHANNELS", channels),
            ("PLANE", plane / self.numbers()),
            ("TILES", self.count),
            ("NUMBERS", self.numbers()),
        ]
        .map(|(name, value)| (name, value as f64))
        .to_vec()
    }

    /// Numbers of an element.
    fn numbers(self) -> usize {
        if self.four { 4 } else { 1 }
    }

    /// The dispatch over all tiles.
    pub(super) fn dispatch(
        self,
        shader: Shader,
        own: Constants,
        bindings: Vec<Binding>,
        caps: &DeviceCaps,
    ) -> Dispatch {
        let mut constants = self.constants();
        let workgroup = f64::from(WORKGROUP);
        constants.extend([("WORKGROUP_SIZE", workgroup), ("LANES", workgroup)]);
        constants.extend(own);
        let shader = shader.with_const("EACH", (EACH / self.numbers()) as u32);
        let workgroups = fold(self.total(), caps);
        Dispatch { shader, constants, bindings, workgroups, guarded: true }
    }
}
