//! `bench train`.
