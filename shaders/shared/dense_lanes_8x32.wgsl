const ROW_GROUPS = 1u;
const COL_QUADS = 1u;
