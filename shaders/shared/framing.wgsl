// Which pixel of an image every place shows: mirrors `Framing` in src/framing.rs, one a sample in the slot.

struct Framing {
    row: i32,
    row_step: i32,
    column: i32,
    column_step: i32,
    top: i32,
    bottom: i32,
    left: i32,
    right: i32,
    cover_top: i32,
    cover_bottom: i32,
    cover_left: i32,
    cover_right: i32,
    cover: u32,
    margin: u32,
}
