// y as [images, groups · rows, plane], where columns are the pixels of a phase, of all images in turn.

fn place(split: u32, group: u32, row: u32, col: u32) -> u32 {
    let image = col / (PHASE_HEIGHT * PHASE_WIDTH);
    let y = FIRST_Y + col / PHASE_WIDTH % PHASE_HEIGHT * STRIDE_Y;
    let x = FIRST_X + col % PHASE_WIDTH * STRIDE_X;
    return ((image * GROUPS + group) * ROWS + row) * PLANE + y * WIDTH + x;
}
