// mix_draw: header, table | mix[8]: λ, whether a box is pasted, its first row, end of rows, first column,
// end of columns, 0, 0. Whole numbers throughout, so that every device draws the same; λ of a box is the
// share of the area that it leaves.

// 0 averages, 1 pastes a box, 2 does either.
override KIND: u32;
override HEIGHT: u32;
override WIDTH: u32;
override INVERSE_AREA: f32;

const SALT = 0x6d697865u;
// Entries for one kind.
const QUANTILES = 1024u;

@group(0) @binding(0) var<storage, read> header: StepHeader;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> mix: array<f32>;

// Where a box begins and ends along one direction; `side` is its share in units of 2⁻¹⁶.
fn cut(length: u32, side: u32, random: u32) -> vec2<u32> {
    let half = (length * side) >> 17u;
    let centre = ((random >> 16u) * length) >> 16u;
    return vec2<u32>(centre - min(centre, half), min(centre + half, length));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    if flat_index(grid) != 0u {
        return;
    }
    let step = header.step + header.seed_high;
    let stream = header.seed_low ^ SALT ^ (header.micro_step * 0x9E3779B9u);
    let first = pcg3d(vec3<u32>(0u, step, stream));
    let entry = first.y >> 22u;
    var rows = vec2<u32>();
    var columns = vec2<u32>();
    let boxed = KIND == 1u || (KIND == 2u && first.x < 0x80000000u);
    if boxed {
        let centre = pcg3d(vec3<u32>(1u, step, stream));
        let side = u32(table[select(0u, QUANTILES, KIND == 2u) + entry]);
        rows = cut(HEIGHT, side, centre.x);
        columns = cut(WIDTH, side, centre.y);
        let pasted = (rows.y - rows.x) * (columns.y - columns.x);
        mix[0] = f32(HEIGHT * WIDTH - pasted) * INVERSE_AREA;
    } else {
        mix[0] = table[entry];
    }
    mix[1] = select(0.0, 1.0, boxed);
    mix[2] = f32(rows.x);
    mix[3] = f32(rows.y);
    mix[4] = f32(columns.x);
    mix[5] = f32(columns.y);
    mix[6] = 0.0;
    mix[7] = 0.0;
}
