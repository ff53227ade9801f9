const ROWS_EACH = 2u;
const COLS_EACH = 2u;
