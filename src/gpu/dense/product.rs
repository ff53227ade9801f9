//! What all dense operations come down to: for each group a product of two operands, cut into tiles
//! and, where the result is small and the sum long, into chunks of the sum.

use super::shaders::Variant;
use super::tile::{self, Engine, Tile};
use crate::gpu::kernel::{Binding, DeviceCaps, Dispatch, Lowered, Shader};
use crate::gpu::lower::{WORKGROUP, activation_code, fold};
use crate::graph::op::Activation;

/// Chunks are multiples of this, the longest step of an engine.
const CHUNK_UNIT: usize = 32;
/// A chunk below this is not worth its own workgroup.
const CHUNK_MIN: usize = 256;
/// A software adapter (llvmpipe) ends a shader's loops after 65535 rounds of four elements each.
const SOFTWARE_CHUNK_MAX: usize = 4 * 60_000;
/// Workgroups to aim for: a GPU wants a few hundred, a software adapter a few for each core.
const GPU_WORKGROUPS: usize = 256;
const SOFTWARE_WORKGROUPS: usize = 32;
/// A tile that computes more than this many times the elements that the thriftiest one does is not
/// worth trying, and one beyond the other share is not taken untried.
const WASTE_MAX: f64 = 2.0;
const WASTE_MAX_UNTRIED: f64 = 1.25;

/// Products, nearly always one, with what must be done before them and after them.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub before: Vec<Step>,
    pub products: Vec<Product>,
    pub after: Vec<Step>,
    /// Numbers in each of the scratch buffers that the steps and the products name.
    pub scratch: Vec<usize>,
}

/// One of the small dispatches around a product, with an invocation for each of its elements.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub shader: Shader,
    pub constants: Vec<(&'static str, f64)>,
    pub bindings: Vec<Binding>,
    pub elements: usize,
}

impl Step {
    fn dispatch(&self, caps: &DeviceCaps) -> Dispatch {
        Dispatch {
            shader: self.shader.clone(),
            constants: self.constants.clone(),
            bindings: self.bindings.clone(),
            workgroups: fold(self.elements.div_ceil(WORKGROUP as usize), caps),
            guarded: true,
        }
    }
}

impl Work {
    /// The tiles worth trying, the default first: those of the first product. The others follow it,
    /// or their own default where they cannot.
    pub fn candidates(&self, caps: &DeviceCaps) -> Vec<Tile> {
        self.products.first().map_or_else(Vec::new, |product| product.candidates(caps))
    }

    /// All dispatches, with `tile` if that is a candidate.
    pub fn lower(&self, tile: Option<Tile>, caps: &DeviceCaps) -> Lowered {
        let mut lowered = Lowered {
            dispatches: self.before.iter().map(|step| step.dispatch(caps)).collect(),
            scratch_bytes: self.scratch.iter().map(|len| len * size_of::<f32>()).collect(),
        };
        for product in &self.products {
            let candidates = product.candidates(caps);
            let tile = tile.filter(|tile| candidates.contains(tile)).unwrap_or(candidates[0]);
            product.lower(tile, caps, &mut lowered);
        }
        lowered.dispatches.extend(self.after.iter().map(|step| step.dispatch(caps)));
        lowered
    }
}

impl From<Product> for Work {
    fn from(product: Product) -> Self {
        Self { products: vec![product], ..Self::default() }
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
    /// Where y is.
    pub output: Binding,
    /// Whether a is read along the inner dimension.
    pub a_along_inner: bool,
    /// Whether a long sum may be cut into chunks, which are then added up as rows of `cols`.
    pub cut: bool,
    /// What follows the sum.
    pub epilogue: Epilogue,
    /// What the operands' parts of the shader take besides.
    pub constants: Vec<(&'static str, f64)>,
    /// The parts of the shader.
    pub variant: Variant,
}

impl Product {
    /// The tiles worth trying, the [default](Self::default_tile) first.
    pub fn candidates(&self, caps: &DeviceCaps) -> Vec<Tile> {
        let default = self.default_tile(caps);
        let mut candidates = vec![default];
        let others = self.thrifty(WASTE_MAX, caps).into_iter().filter(|tile| *tile != default);
        candidates.extend(others);
        candidates
    }

    fn engine(&self, caps: &DeviceCaps) -> Engine {
        Engine::of(caps, self.variant.half())
    }

    /// The tiles that compute at most `waste` times as many elements as the thriftiest one does, the
    /// largest first.
    fn thrifty(&self, waste: f64, caps: &DeviceCaps) -> Vec<Tile> {
        let fits = |tile: &Tile| {
            tile.fits(caps) && (tile.engine != Engine::Lanes || self.suits_lanes(*tile))
        };
        let mut tiles = self.engine(caps).tiles().to_vec();
        tiles.retain(fits);
        let computed = |tile: &Tile| (self.workgroups(*tile) * tile.area()) as f64;
        let least = tiles.iter().map(computed).fold(f64::INFINITY, f64::min);
        tiles.retain(|tile| computed(tile) <= waste * least);
        tiles
    }

    /// The tile that wastes little and still leaves enough workgroups. Depends on nothing but shape
    /// and kind of device, for the cut into chunks follows from it.
    fn default_tile(&self, caps: &DeviceCaps) -> Tile {
        if self.engine(caps) == Engine::Lanes {
            return match self.rows {
                ..=8 if self.a_along_inner => Tile::lanes(8, 32),
                ..=16 if self.a_along_inner => Tile::lanes(16, 32),
                33.. if self.workgroups(Tile::lanes(64, 32)) >= SOFTWARE_WORKGROUPS => {
                    Tile::lanes(64, 32)
                }
                _ => Tile::lanes(32, 32),
            };
        }
        let tiles = self.thrifty(WASTE_MAX_UNTRIED, caps);
        // A long sum makes several workgroups of a tile.
        let chunks = if self.cut { (self.inner / CHUNK_MIN).max(1) } else { 1 };
        let enough = |tile: &Tile| self.workgroups(*tile) * chunks >= GPU_WORKGROUPS;
        let smallest = || tiles.iter().min_by_key(|tile| tile.area());
        let chosen = tiles.iter().find(|tile| enough(tile)).or_else(smallest);
        // Every device runs a tile of 32 by 32: 64 invocations, less than 10 KiB of workgroup memory.
        chosen.copied().unwrap_or(Tile::tiled(32, 32))
    }

    /// Whether the engine of lanes can compute this product with a tile: a that is read along rows
    /// comes as quads of them, four to a lane.
    fn suits_lanes(&self, tile: Tile) -> bool {
        self.a_along_inner || tile.rows.is_multiple_of(4 * tile::LANES)
    }

    fn workgroups(&self, tile: Tile) -> usize {
        tile.count(self.rows, self.cols).iter().product::<usize>() * self.groups
    }

    /// Adds the dispatches into y. Chunks of a sum end in scratch memory, and it is the
    /// dispatch that adds them up which does what follows the sum.
    fn lower(&self, tile: Tile, caps: &DeviceCaps, into: &mut Lowered) {
        let chunk = if self.cut { self.chunk(caps) } else { self.inner };
        let chunk = chunk.next_multiple_of(CHUNK_UNIT);
        let splits = self.inner.div_ceil(chunk);
        let scratch = into.scratch_bytes.len();
        let first = if splits == 1 { self.epilogue } else { Epilogue::default() };
        let mut bindings = self.operands.to_vec();
        bindings.push(if splits == 1 { self.output } else { Binding::ScratchWrite(scratch) });
        bindings.extend(first.bias);
        let [row_tiles, col_tiles] = tile.count(self.rows, self.cols);
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
        into.dispatches.push(Dispatch {
            shader: self.variant.shader(tile, first.bias.is_some(), splits > 1, caps),
            constants: own.iter().chain(&self.constants).copied().collect(),
            bindings,
            workgroups: [x, y, (self.groups * splits) as u32],
            guarded: true,
        });
        if splits > 1 {
            let bytes = splits * self.groups * self.rows * self.cols * size_of::<f32>();
            into.scratch_bytes.push(bytes);
            into.dispatches.push(self.reduce(splits, scratch, caps));
        }
    }

    /// Adds up the chunks in scratch memory.
    fn reduce(&self, splits: usize, scratch: usize, caps: &DeviceCaps) -> Dispatch {
        let len = self.groups * self.rows * self.cols;
        let mut constants = vec![
            ("SPLITS", splits as f64),
            ("GROUPS", self.groups as f64),
            ("ROWS", self.rows as f64),
            ("COLS", self.cols as f64),
            self.epilogue.activation(),
        ];
        constants.extend(&self.constants);
        let mut bindings = vec![Binding::ScratchRead(scratch), self.output];
        bindings.extend(self.epilogue.bias);
        let shader = self.variant.reduce(self.epilogue.bias.is_some());
        Step { shader, constants, bindings, elements: len }.dispatch(caps)
    }

    /// How many elements of the sum a workgroup adds up: all of them, if there are tiles enough of the
    /// default kind. Depends on nothing but shape and kind of device, whichever tile is chosen, so that
    /// the same bits come out every time.
    fn chunk(&self, caps: &DeviceCaps) -> usize {
        let (wanted, most) = if caps.software {
            (SOFTWARE_WORKGROUPS, SOFTWARE_CHUNK_MAX)
        } else {
            (GPU_WORKGROUPS, usize::MAX)
        };
        let splits = (wanted / self.workgroups(self.default_tile(caps))).max(1);
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
    pub fn activation(&self) -> (&'static str, f64) {
        ("ACTIVATION", activation_code(self.activation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::dense::shaders::{Layout, Types};

    const GPU: DeviceCaps = DeviceCaps {
        max_workgroups: 100,
        workgroup_bytes: 16384,
        max_invocations: 256,
        software: false,
        subgroup_size: 0,
        cooperative: false,
    };
    const LLVMPIPE: DeviceCaps = DeviceCaps { software: true, subgroup_size: tile::LANES, ..GPU };

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
            output: Binding::Output(0),
            a_along_inner: true,
            cut: true,
            epilogue: Epilogue { bias: Some(Binding::Input(2)), activation: Activation::Relu },
            constants: vec![],
            variant: Variant::matmul(PLAIN, PLAIN, Types::default(), false),
        }
    }

    const PLAIN: Layout = Layout { transposed: false, fours: false };

    fn lower(product: &Product, tile: Option<Tile>, caps: &DeviceCaps) -> Lowered {
        Work::from(product.clone()).lower(tile, caps)
    }

    #[test]
    fn tiles_cover_the_result_within_the_limits_of_a_dispatch() {
        for caps in [GPU, LLVMPIPE] {
            for (rows, cols) in [(1, 1), (16, 33), (65, 64), (700, 900), (3, 200_000)] {
                let product = product(3, rows, cols, 5);
                for tile in product.candidates(&caps) {
                    let lowered = lower(&product, Some(tile), &caps);
                    let [dispatch] = &lowered.dispatches[..] else { panic!("a short sum was cut") };
                    let [tiles, row] = ["TILES", "COL_TILES"].map(|name| constant(dispatch, name));
                    assert!(row * tile.cols as usize >= cols);
                    assert!(tiles / row * tile.rows as usize >= rows);
                    let [x, y, z] = dispatch.workgroups;
                    assert!(x <= 100 && y <= 100 && x * y >= tiles as u32, "{x} by {y}: {tiles}");
                    assert_eq!([constant(dispatch, "GRID_X"), z as usize], [x as usize, 3]);
                }
            }
        }
    }

    #[test]
    fn long_sums_of_small_results_are_cut_into_chunks_that_cover_them() {
        for caps in [GPU, LLVMPIPE] {
            for inner in [257, 1000, 100_352, 3_000_000] {
                let product = product(2, 16, 9, inner);
                let lowered = lower(&product, None, &caps);
                let [dispatch, reduce] = &lowered.dispatches[..] else { panic!("not cut") };
                let (splits, chunk) = (constant(dispatch, "SPLITS"), constant(dispatch, "CHUNK"));
                assert!(splits * chunk >= inner && (splits - 1) * chunk < inner);
                assert!(chunk.is_multiple_of(CHUNK_UNIT));
                assert_eq!(dispatch.workgroups[2] as usize, 2 * splits);
                assert_eq!(lowered.scratch_bytes, [splits * 2 * 16 * 9 * 4]);
                assert_eq!(
                    ["GROUPS", "ROWS", "COLS"].map(|name| constant(reduce, name)),
                    [2, 16, 9]
                );
                // What follows the sum is done once, at the end.
                assert_eq!((dispatch.bindings.len(), constant(dispatch, "ACTIVATION")), (3, 0));
                assert_eq!((reduce.bindings.len(), constant(reduce, "ACTIVATION")), (3, 1));
                let whole = lower(&Product { cut: false, ..product }, None, &caps);
                assert_eq!((whole.dispatches.len(), whole.dispatches[0].bindings.len()), (1, 4));
            }
        }
    }
}
