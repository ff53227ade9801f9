const ROW_GROUPS = 8u;
const COL_QUADS = 1u;
