const ROW_GROUPS = 4u;
const COL_GROUPS = 4u;
