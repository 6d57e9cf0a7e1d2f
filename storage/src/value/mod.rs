//! Values and the pure algorithms on them.

pub mod number;
