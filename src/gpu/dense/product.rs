//! What all dense operations come down to: for each group a product of two operands, cut into tiles
//! and, where the result is small and the sum long, into chunks of the sum.

use super::shaders;
use crate::gpu::kernel::{Binding, DeviceCaps, Dispatch, Lowered, Shader};
use crate::gpu::lower::{WORKGROUP, activation_code, fold};
use crate::graph::op::Activation;

/// Lanes of the registers that the engine for software adapters is written for.
const LANES: u32 = 8;
/// Invocations along each side of a tile of the engine for GPUs.
const TILED_SIDE: u32 = 16;
/// Chunks are multiples of this, the tiled engine's step.
const CHUNK_UNIT: usize = 16;
/// A chunk below this is not worth its own workgroup.
const CHUNK_MIN: usize = 256;
/// A software adapter (llvmpipe) ends a shader's loops after 65535 rounds of four elements each.
const SOFTWARE_CHUNK_MAX: usize = 4 * 60_000;
/// Workgroups to aim for: a GPU wants a few hundred, a software adapter a few for each core.
const GPU_WORKGROUPS: usize = 256;
const SOFTWARE_WORKGROUPS: usize = 32;

/// Which engine computes a product, and the rows and columns of its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    /// `dense_lanes.wgsl`
    Lanes64x32,
    /// `dense_lanes.wgsl`
    Lanes32x32,
    /// `dense_lanes.wgsl`
    Lanes16x32,
    /// `dense_lanes.wgsl`
    Lanes8x32,
    /// `dense_tiled.wgsl`
    Tiled64x64,
    /// `dense_tiled.wgsl`
    Tiled32x32,
    /// `dense_tiled.wgsl`
    Tiled16x64,
}

impl Tile {
    /// Whether it belongs to the engine for software adapters.
    pub fn in_lanes(self) -> bool {
        use Tile::*;
        matches!(self, Lanes64x32 | Lanes32x32 | Lanes16x32 | Lanes8x32)
    }

    fn size(self) -> [usize; 2] {
        match self {
            Tile::Lanes64x32 => [64, 32],
            Tile::Lanes32x32 | Tile::Tiled32x32 => [32, 32],
            Tile::Lanes16x32 => [16, 32],
            Tile::Lanes8x32 => [8, 32],
            Tile::Tiled64x64 => [64, 64],
            Tile::Tiled16x64 => [16, 64],
        }
    }

    /// The sizes that its engine leaves open.
    pub fn consts(self) -> [(&'static str, u32); 2] {
        let [rows, cols] = self.size().map(|side| side as u32);
        match self.in_lanes() {
            true => [("ROW_GROUPS", rows / LANES), ("COL_QUADS", cols / (4 * LANES))],
            false => [("ROWS_EACH", rows / TILED_SIDE), ("COLS_EACH", cols / TILED_SIDE)],
        }
    }
}

/// `y[groups, rows, cols]`, each group a product over `inner`.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub groups: usize,
    pub rows: usize,
    pub cols: usize,
    pub inner: usize,
    /// Where a and b are.
    pub operands: [Binding; 2],
    /// Whether a is read along the inner dimension.
    pub a_along_inner: bool,
    /// Whether a long sum may be cut into chunks, which are then added up as rows of `cols`.
    pub cut: bool,
    /// What follows the sum.
    pub epilogue: Epilogue,
    /// What the operands' parts of the shader take besides.
    pub constants: Vec<(&'static str, f64)>,
}

impl Product {
    /// The tile that wastes little and still leaves enough workgroups.
    fn tile(&self, caps: &DeviceCaps) -> Tile {
        if caps.software && caps.subgroup_size == LANES {
            let by_rows = self.a_along_inner;
            return match self.rows {
                ..=8 if by_rows => Tile::Lanes8x32,
                ..=16 if by_rows => Tile::Lanes16x32,
                _ if self.workgroups(Tile::Lanes64x32) < SOFTWARE_WORKGROUPS => Tile::Lanes32x32,
                ..=32 => Tile::Lanes32x32,
                _ => Tile::Lanes64x32,
            };
        }
        match self.rows {
            ..=16 => Tile::Tiled16x64,
            _ if self.workgroups(Tile::Tiled64x64) < GPU_WORKGROUPS => Tile::Tiled32x32,
            _ => Tile::Tiled64x64,
        }
    }

    fn tiles(&self, tile: Tile) -> [usize; 2] {
        let [rows, cols] = tile.size();
        [self.rows.div_ceil(rows), self.cols.div_ceil(cols)]
    }

    fn workgroups(&self, tile: Tile) -> usize {
        self.tiles(tile).iter().product::<usize>() * self.groups
    }

    /// The dispatches into the only output. `shader` is asked for the variant of a tile, with a bias
    /// or without: chunks of a sum end in scratch memory, and it is the dispatch that adds them up
    /// which does what follows the sum.
    pub fn lower(&self, shader: impl Fn(Tile, bool) -> Shader, caps: &DeviceCaps) -> Lowered {
        let tile = self.tile(caps);
        let chunk = if self.cut { self.chunk(tile, caps) } else { self.inner };
        let chunk = chunk.next_multiple_of(CHUNK_UNIT);
        let splits = self.inner.div_ceil(chunk);
        let first = if splits == 1 { self.epilogue } else { Epilogue::default() };
        let mut bindings = self.operands.to_vec();
        bindings.push(if splits == 1 { Binding::Output(0) } else { Binding::ScratchWrite(0) });
        bindings.extend(first.bias);
        let [row_tiles, col_tiles] = self.tiles(tile);
        let [x, y, _] = fold(row_tiles * col_tiles, caps);
        let own = [
            ("ROWS", self.rows as f64),
            ("COLS", self.cols as f64),
            ("INNER", self.inner as f64),
            ("GROUPS", self.groups as f64),
            ("SPLITS", splits as f64),
            ("CHUNK", chunk as f64),
            ("COL_TILES", col_tiles as f64),
            ("TILES", (row_tiles * col_tiles) as f64),
            ("GRID_X", f64::from(x)),
            first.activation(),
        ];
        let dispatch = Dispatch {
            shader: shader(tile, first.bias.is_some()),
            constants: own.iter().chain(&self.constants).copied().collect(),
            bindings,
            workgroups: [x, y, (self.groups * splits) as u32],
            guarded: true,
        };
        if splits == 1 {
            return Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] };
        }
        let bytes = splits * self.groups * self.rows * self.cols * size_of::<f32>();
        let reduce = self.reduce(splits, caps);
        Lowered { dispatches: vec![dispatch, reduce], scratch_bytes: vec![bytes] }
    }

    /// Adds up the chunks in scratch memory.
    fn reduce(&self, splits: usize, caps: &DeviceCaps) -> Dispatch {
        let len = self.groups * self.rows * self.cols;
        let constants = vec![
            ("SPLITS", splits as f64),
            ("LEN", len as f64),
            ("COLS", self.cols as f64),
            self.epilogue.activation(),
        ];
        let mut bindings = vec![Binding::ScratchRead(0), Binding::Output(0)];
        bindings.extend(self.epilogue.bias);
        let shader = shaders::reduce(self.epilogue.bias.is_some());
        elementwise(shader, constants, bindings, len, caps)
    }

    /// How many elements of the sum a workgroup adds up: all of them, if there are tiles enough.
    /// Depends on nothing but shape and kind of device, so that the same bits come out every time.
    fn chunk(&self, tile: Tile, caps: &DeviceCaps) -> usize {
        let (wanted, most) = if caps.software {
            (SOFTWARE_WORKGROUPS, SOFTWARE_CHUNK_MAX)
        } else {
            (GPU_WORKGROUPS, usize::MAX)
        };
        let splits = (wanted / self.workgroups(tile)).max(1);
        self.inner.div_ceil(splits).max(CHUNK_MIN).min(most)
    }
}

/// What follows a sum before it is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epilogue {
    /// The bias, where one is added.
    pub bias: Option<Binding>,
    pub activation: Activation,
}

impl Epilogue {
    /// The constant that `shared/activation.wgsl` takes.
    fn activation(&self) -> (&'static str, f64) {
        ("ACTIVATION", activation_code(self.activation))
    }
}

/// A dispatch of one invocation an element, for the small shaders around a product.
pub(super) fn elementwise(
    shader: Shader,
    constants: Vec<(&'static str, f64)>,
    bindings: Vec<Binding>,
    elements: usize,
    caps: &DeviceCaps,
) -> Dispatch {
    let workgroups = fold(elements.div_ceil(WORKGROUP as usize), caps);
    Dispatch { shader, constants, bindings, workgroups, guarded: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: DeviceCaps = DeviceCaps {
        max_workgroups: 100,
        workgroup_bytes: 16384,
        max_invocations: 256,
        software: false,
        subgroup_size: 0,
    };
    const LLVMPIPE: DeviceCaps = DeviceCaps { software: true, subgroup_size: LANES, ..GPU };

    fn constant(dispatch: &Dispatch, name: &str) -> usize {
        let found = dispatch.constants.iter().find(|(key, _)| *key == name);
        found.expect("the constant is given").1 as usize
    }

    fn product(groups: usize, rows: usize, cols: usize, inner: usize) -> Product {
        Product {
            groups,
            rows,
            cols,
            inner,
            operands: [Binding::Input(0), Binding::Input(1)],
            a_along_inner: true,
            cut: true,
            epilogue: Epilogue { bias: Some(Binding::Input(2)), activation: Activation::Relu },
            constants: vec![],
        }
    }

    fn lower(product: &Product, caps: &DeviceCaps) -> Lowered {
        product.lower(|_, bias| shaders::reduce(bias), caps)
    }

    #[test]
    fn tiles_cover_the_result_within_the_limits_of_a_dispatch() {
        for caps in [GPU, LLVMPIPE] {
            for (rows, cols) in [(1, 1), (16, 33), (65, 64), (700, 900), (3, 200_000)] {
                let product = product(3, rows, cols, 5);
                let lowered = lower(&product, &caps);
                let [dispatch] = &lowered.dispatches[..] else { panic!("a short sum was cut") };
                let [height, width] = product.tile(&caps).size();
                let (tiles, row) = (constant(dispatch, "TILES"), constant(dispatch, "COL_TILES"));
                assert!(row * width >= cols && tiles / row * height >= rows);
                let [x, y, z] = dispatch.workgroups;
                assert!(x <= 100 && y <= 100 && x * y >= tiles as u32, "{x} by {y} for {tiles}");
                assert_eq!([constant(dispatch, "GRID_X"), z as usize], [x as usize, 3]);
            }
        }
    }

    #[test]
    fn long_sums_of_small_results_are_cut_into_chunks_that_cover_them() {
        for caps in [GPU, LLVMPIPE] {
            for inner in [257, 1000, 100_352, 3_000_000] {
                let product = product(2, 16, 9, inner);
                let lowered = lower(&product, &caps);
                let [dispatch, reduce] = &lowered.dispatches[..] else { panic!("not cut") };
                let (splits, chunk) = (constant(dispatch, "SPLITS"), constant(dispatch, "CHUNK"));
                assert!(splits * chunk >= inner && (splits - 1) * chunk < inner);
                assert!(chunk.is_multiple_of(CHUNK_UNIT));
                assert_eq!(dispatch.workgroups[2] as usize, 2 * splits);
                assert_eq!(lowered.scratch_bytes, [splits * 2 * 16 * 9 * 4]);
                assert_eq!(constant(reduce, "LEN"), 2 * 16 * 9);
                // What follows the sum is done once, at the end.
                assert_eq!((dispatch.bindings.len(), constant(dispatch, "ACTIVATION")), (3, 0));
                assert_eq!((reduce.bindings.len(), constant(reduce, "ACTIVATION")), (3, 1));
                let whole = lower(&Product { cut: false, ..product }, &caps);
                assert_eq!((whole.dispatches.len(), whole.dispatches[0].bindings.len()), (1, 4));
            }
        }
    }
}
