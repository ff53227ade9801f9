// By which angles a feature of a row of queries, keys and values turns. Queries fill the first Q_WIDTH of its columns, keys
// and values K_WIDTH each; a head has HEAD features, of which those of the first half turn with those of the second.

override TOKENS: u32;
// Tokens of a sample.
override T: u32;
override ROWS: u32;
override HEAD: u32;
override Q_WIDTH: u32;
override K_WIDTH: u32;

// What a column turns with, and by which cosine and sine.
struct Turn {
    other: u32,
    cosine: f32,
    sine: f32,
}

fn row_width() -> u32 {
    return Q_WIDTH + 2u * K_WIDTH;
}

// Whether a column holds a value, which does not turn.
fn is_value(column: u32) -> bool {
    return column >= Q_WIDTH + K_WIDTH;
}

// Of a column of the first half of a head the sine is negative: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin.
fn turn_of(token: u32, column: u32) -> Turn {
    let half = HEAD / 2u;
    let feature = column % HEAD;
    let row = min(position_of(token), ROWS - 1u) * HEAD;
    let cosine = table[row + feature % half];
    let sine = table[row + half + feature % half];
    if feature < half {
        return Turn(column + half, cosine, -sine);
    }
    return Turn(column - half, cosine, sine);
}
