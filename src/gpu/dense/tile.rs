//! Tiles: which engine computes a product, and how much of the result a workgroup takes.
//!
//! Within an engine the tile never changes a bit of the result: every element's sum runs over the inner
//! dimension in the same order, and its cut into chunks follows from the shape alone. So whoever tunes
//! may take any.

use std::fmt;
use std::str::FromStr;

use crate::gpu::kernel::DeviceCaps;

/// Lanes of the registers that the engine for software adapters is written for.
pub(super) const LANES: u32 = 8;
/// Invocations of the subgroups that the engine for matrix units is written for, and of its workgroups.
const TEAM: u32 = 32;
const TEAMS: u32 = 4;
/// How deep a slice of the operands may be in workgroup memory, for either engine, the best first.
const TILED_STEPS: [u32; 2] = [16, 8];
const COOP_STEPS: [u32; 2] = [32, 16];

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// `dense_lanes.wgsl`: for software adapters with subgroups of eight lanes.
    Lanes,
    /// `dense_tiled.wgsl`: for GPUs.
    Tiled,
    /// `dense_coop.wgsl`: for the matrix units of GPUs that have such, and f16 operands.
    Coop,
}

impl Engine {
    const ALL: [Engine; 3] = [Engine::Lanes, Engine::Tiled, Engine::Coop];

    /// The engine of a device for a product, of which `half` says whether an operand is f16.
    pub(super) fn of(caps: &DeviceCaps, half: bool) -> Self {
        if caps.software && caps.subgroup_size == LANES {
            return Engine::Lanes;
        }
        let coop = half && caps.cooperative && caps.subgroup_size == TEAM;
        match coop && Engine::Coop.tiles().iter().any(|tile| tile.fits(caps)) {
            true => Engine::Coop,
            false => Engine::Tiled,
        }
    }

    /// All its tiles, the largest first.
    pub(super) fn tiles(self) -> &'static [Tile] {
        match self {
            Engine::Lanes => &Tile::LANES,
            Engine::Tiled => &Tile::TILED,
            Engine::Coop => &Tile::COOP,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Engine::Lanes => "lanes",
            Engine::Tiled => "tiled",
            Engine::Coop => "coop",
        }
    }
}

/// The part of a product's result that one workgroup computes. Written as `tiled-64x32`: engine, rows,
/// columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    pub(super) engine: Engine,
    pub(super) rows: u32,
    pub(super) cols: u32,
}

impl Tile {
    const LANES: [Tile; 5] = [
        Self::lanes(64, 64),
        Self::lanes(64, 32),
        Self::lanes(32, 32),
        Self::lanes(16, 32),
        Self::lanes(8, 32),
    ];
    const TILED: [Tile; 7] = [
        Self::tiled(128, 128),
        Self::tiled(128, 64),
        Self::tiled(64, 128),
        Self::tiled(64, 64),
        Self::tiled(64, 32),
        Self::tiled(32, 32),
        Self::tiled(16, 64),
    ];
    const COOP: [Tile; 5] = [
        Self::coop(128, 128),
        Self::coop(128, 64),
        Self::coop(64, 128),
        Self::coop(64, 64),
        Self::coop(32, 64),
    ];

    pub(super) const fn lanes(rows: u32, cols: u32) -> Self {
        Self { engine: Engine::Lanes, rows, cols }
    }

    pub(super) const fn tiled(rows: u32, cols: u32) -> Self {
        Self { engine: Engine::Tiled, rows, cols }
    }

    const fn coop(rows: u32, cols: u32) -> Self {
        Self { engine: Engine::Coop, rows, cols }
    }

    /// How many tiles cover so many rows and columns, along each.
    pub(super) fn count(self, rows: usize, cols: usize) -> [usize; 2] {
        [rows.div_ceil(self.rows as usize), cols.div_ceil(self.cols as usize)]
    }

    /// Its elements.
    pub(super) fn area(self) -> usize {
        (self.rows * self.cols) as usize
    }

    /// Whether a device can run it.
    pub(super) fn fits(self, caps: &DeviceCaps) -> bool {
        self.step(caps).is_some() && self.invocations() <= caps.max_invocations
    }

    fn invocations(self) -> u32 {
        match self.engine {
            Engine::Lanes => LANES,
            Engine::Tiled => self.grid().iter().product(),
            Engine::Coop => TEAM * TEAMS,
        }
    }

    /// Invocations of the tiled engine along rows and columns. Each has 8 by 8 elements where the tile
    /// is large, else 8 by 4 or 4 by 4, for there must be enough of them to hide a load.
    fn grid(self) -> [u32; 2] {
        match [self.rows, self.cols] {
            [64, 64] => [8, 16],
            [rows, cols] if rows * cols >= 64 * 64 => [rows / 8, cols / 8],
            [64, cols] => [8, cols / 4],
            [rows, cols] => [rows / 4, cols / 4],
        }
    }

    /// The depth of its slices on a device; none where the workgroup memory is too small.
    fn step(self, caps: &DeviceCaps) -> Option<u32> {
        // Two slices of each operand, with the padding of every line, and a square of results of each
        // team.
        let tiled = |step| 2 * step * (self.rows + self.cols + 8) * 4;
        let coop = |step| 2 * (step + 8) * (self.rows + self.cols) * 2 + TEAMS * 16 * 16 * 4;
        let fits = |bytes: u32| bytes <= caps.workgroup_bytes;
        match self.engine {
            Engine::Lanes => Some(4),
            Engine::Tiled => TILED_STEPS.into_iter().find(|&step| fits(tiled(step))),
            Engine::Coop => COOP_STEPS.into_iter().find(|&step| fits(coop(step))),
        }
    }

    /// The sizes that its engine leaves open, on a device that it fits.
    pub(super) fn consts(self, caps: &DeviceCaps) -> Vec<(&'static str, u32)> {
        let Self { engine, rows, cols } = self;
        let step = ("STEP", self.step(caps).unwrap_or(TILED_STEPS[1]));
        match engine {
            Engine::Lanes => vec![("ROW_GROUPS", rows / LANES), ("COL_QUADS", cols / (4 * LANES))],
            Engine::Tiled => {
                let [lane_rows, lane_cols] = self.grid();
                vec![
                    ("LANE_ROWS", lane_rows),
                    ("LANE_COLS", lane_cols),
                    ("ROW_QUADS", rows / lane_rows / 4),
                    ("COL_QUADS", cols / lane_cols / 4),
                    step,
                ]
            }
            Engine::Coop => vec![("ROW_SQUARES", rows / 32), ("COL_SQUARES", cols / 32), step],
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}x{}", self.engine.name(), self.rows, self.cols)
    }
}

/// A name that is no tile's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no tile called {0:?}")]
pub struct UnknownTile(String);

impl FromStr for Tile {
    type Err = UnknownTile;

    fn from_str(name: &str) -> Result<Self, UnknownTile> {
        let mut all = Engine::ALL.into_iter().flat_map(Engine::tiles);
        all.find(|tile| tile.to_string() == name).copied().ok_or_else(|| UnknownTile(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: DeviceCaps = DeviceCaps {
        max_workgroups: 65535,
        workgroup_bytes: 48 * 1024,
        max_invocations: 1024,
        software: false,
        subgroup_size: 32,
        cooperative: true,
    };

    #[test]
    fn names_lead_back_to_tiles() {
        for tile in Engine::ALL.into_iter().flat_map(Engine::tiles) {
            assert_eq!(tile.to_string().parse(), Ok(*tile));
        }
        assert_eq!(Tile::tiled(64, 64).to_string(), "tiled-64x64");
        for name in ["tiled-64x65", "lanes", "", "tiled-64x64 "] {
            assert_eq!(name.parse::<Tile>(), Err(UnknownTile(name.into())));
        }
    }

    #[test]
    fn matrix_units_are_used_only_where_they_are_and_for_f16() {
        assert_eq!(Engine::of(&GPU, true), Engine::Coop);
        assert_eq!(Engine::of(&GPU, false), Engine::Tiled);
        for caps in [
            DeviceCaps { cooperative: false, ..GPU },
            DeviceCaps { subgroup_size: 64, ..GPU },
            DeviceCaps { subgroup_size: 0, ..GPU },
            DeviceCaps { workgroup_bytes: 8192, ..GPU },
            DeviceCaps { max_invocations: 64, ..GPU },
        ] {
            assert_eq!(Engine::of(&caps, true), Engine::Tiled, "{caps:?}");
        }
        let llvmpipe = DeviceCaps { software: true, subgroup_size: LANES, ..GPU };
        assert_eq!(Engine::of(&llvmpipe, true), Engine::Lanes);
    }

    #[test]
    fn tiles_stay_within_a_device() {
        let small = DeviceCaps { workgroup_bytes: 16 * 1024, max_invocations: 128, ..GPU };
        let fitting = |caps: &DeviceCaps| -> Vec<String> {
            let all = Engine::Tiled.tiles().iter().filter(|tile| tile.fits(caps));
            all.map(Tile::to_string).collect()
        };
        assert_eq!(fitting(&GPU).len(), 7);
        assert_eq!(
            fitting(&small),
            [
                "tiled-128x64",
                "tiled-64x128",
                "tiled-64x64",
                "tiled-64x32",
                "tiled-32x32",
                "tiled-16x64"
            ]
        );
        // Each invocation has whole fours of rows and columns, and 32 of them are 4 by 8.
        for tile in Engine::Tiled.tiles() {
            let [rows, cols] = tile.grid();
            assert!(rows % 4 == 0 && cols % 8 == 0 && tile.rows % (4 * rows) == 0, "{tile}");
            assert!(tile.cols % (4 * cols) == 0 && tile.invocations() <= 256, "{tile}");
        }
    }
}
