// The norm of a share of a channel, whatever rows are valid; needs channels.wgsl, and `x` and `y`.
fn apply(share: Share, center: f32, scale: f32, shift: f32) {
    for (var row = share.first_row; row < ROWS; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            let i = plane + column;
            let value = norm_of(Element(x[i]), center, scale, shift);
            y[i] = StoreY(activate_element(add_residual(value, i)));
        }
    }
}
