// The gradient of a share of a channel; needs channels.wgsl and batch_norm_through.wgsl.
fn pass_share(share: Share, norm: Norm, through: Through) {
    for (var row = share.first_row; row < ROWS; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            pass_element(plane + column, row, norm, through);
        }
    }
}
