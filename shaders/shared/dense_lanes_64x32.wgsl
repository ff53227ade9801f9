const ROW_GROUPS = 8u;
const COL_GROUPS = 4u;
