const ROWS_EACH = 1u;
const COLS_EACH = 4u;
