//! Several batches prepared at once: finished in any order, delivered in theirs; and what is read ahead or kept
//! changes no bit of them.

mod bed;
mod in_order;
mod kept;
mod read_ahead;
