const ROW_GROUPS = 2u;
const COL_QUADS = 1u;
