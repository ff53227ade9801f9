const ROW_GROUPS = 1u;
const COL_GROUPS = 4u;
