const ROWS_EACH = 4u;
const COLS_EACH = 4u;
