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

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// `dense_lanes.wgsl`: for software adapters with subgroups of eight lanes.
    Lanes,
    /// `dense_tiled.wgsl`: for GPUs.
    Tiled,
}

impl Engine {
    /// The engine of a device.
    pub(super) fn of(caps: &DeviceCaps) -> Self {
        match caps.software && caps.subgroup_size == LANES {
            true => Engine::Lanes,
            false => Engine::Tiled,
        }
    }

    /// All its tiles, the largest first.
    pub(super) fn tiles(self) -> &'static [Tile] {
        match self {
            Engine::Lanes => &Tile::LANES,
            Engine::Tiled => &Tile::TILED,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Engine::Lanes => "lanes",
            Engine::Tiled => "tiled",
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
    const LANES: [Tile; 4] =
        [Self::lanes(64, 32), Self::lanes(32, 32), Self::lanes(16, 32), Self::lanes(8, 32)];
    const TILED: [Tile; 3] = [Self::tiled(64, 64), Self::tiled(32, 32), Self::tiled(16, 64)];

    pub(super) const fn lanes(rows: u32, cols: u32) -> Self {
        Self { engine: Engine::Lanes, rows, cols }
    }

    pub(super) const fn tiled(rows: u32, cols: u32) -> Self {
        Self { engine: Engine::Tiled, rows, cols }
    }

    /// How many tiles cover so many rows and columns, along each.
    pub(super) fn count(self, rows: usize, cols: usize) -> [usize; 2] {
        [rows.div_ceil(self.rows as usize), cols.div_ceil(self.cols as usize)]
    }

    /// The sizes that its engine leaves open.
    pub(super) fn consts(self) -> Vec<(&'static str, u32)> {
        let Self { engine, rows, cols } = self;
        match engine {
            Engine::Lanes => vec![("ROW_GROUPS", rows / LANES), ("COL_QUADS", cols / (4 * LANES))],
            Engine::Tiled => vec![("ROWS_EACH", rows / 16), ("COLS_EACH", cols / 16)],
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
        let mut all = [Engine::Lanes, Engine::Tiled].into_iter().flat_map(Engine::tiles);
        all.find(|tile| tile.to_string() == name).copied().ok_or_else(|| UnknownTile(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_tiles() {
        for engine in [Engine::Lanes, Engine::Tiled] {
            for &tile in engine.tiles() {
                assert_eq!(tile.to_string().parse(), Ok(tile));
            }
        }
        assert_eq!(Tile::tiled(64, 64).to_string(), "tiled-64x64");
        for name in ["tiled-64x65", "lanes", "", "tiled-64x64 "] {
            assert_eq!(name.parse::<Tile>(), Err(UnknownTile(name.into())));
        }
    }
}
