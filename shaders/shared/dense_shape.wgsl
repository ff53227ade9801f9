// A product of two operands, as every dense operation is written here:
//
//     y(row, col) = Σ_k a(row, k) · b(k, col)      for each group
//
// An operand part says how a and b are read, an output part where y goes, and an engine part
// (dense_lanes, dense_tiled or dense_coop) does the work. Operands are read four elements at a time:
// along the inner dimension k where A_ALONG_INNER (B_ALONG_INNER) holds, else along rows (columns).
// Whatever lies beyond `INNER` reads as 0; beyond `ROWS` and `COLS` anything may come, which is never
// written.
//
// AStore, BStore, YStore and BiasStore say what the bindings hold: f32 or f16, one by one or by fours.
// Products are summed as f32.

const Y_BINDING = 2u;
const BIAS_BINDING = 3u;

override ROWS: u32;
override COLS: u32;
override INNER: u32;
// Groups of a convolution; every group is a product of its own.
override GROUPS: u32 = 1u;
// The inner dimension is cut into so many chunks, each summed by a workgroup of its own.
override SPLITS: u32 = 1u;
// Elements of a chunk: a multiple of every engine's step.
override CHUNK: u32;
// Tiles in a row of tiles, tiles in all, and workgroups in x, over which tiles are folded.
override COL_TILES: u32;
override TILES: u32;
override GRID_X: u32;

const ALONG = vec4<u32>(0u, 1u, 2u, 3u);
