const ROW_GROUPS = 4u;
const COL_QUADS = 1u;
