const ROW_GROUPS = 2u;
const COL_GROUPS = 2u;
