// y as [images, groups · rows, plane], where columns are the pixels of all images in turn.

fn place(split: u32, group: u32, row: u32, col: u32) -> u32 {
    return ((col / PLANE * GROUPS + group) * ROWS + row) * PLANE + col % PLANE;
}
