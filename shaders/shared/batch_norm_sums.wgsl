// The sums of a channel's gradients by a workgroup of its own; needs channels.wgsl, rows.wgsl and batch_norm_gradient.wgsl.
// Padded rows carry no gradient, so they need no guard.

// Over the first `rows` rows: all or none.
fn sums_of(share: Share, norm: Norm, rows: u32, grid: Grid) -> Sums {
    var products = Element();
    var gradients = Element();
    for (var row = share.first_row; row < rows; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        var products_of_row = Element();
        var gradients_of_row = Element();
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            let value = Element(x[plane + column]);
            let gradient = gate(Element(dy[plane + column]), value, norm);
            products_of_row += gradient * (value - norm.center);
            gradients_of_row += gradient;
        }
        products += products_of_row;
        gradients += gradients_of_row;
    }
    return Sums(row_sum(total(products), grid), row_sum(total(gradients), grid));
}
