//! The CPU twins: one file an operation, and the executor that runs them.
