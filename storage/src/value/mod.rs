//! Values and the pure algorithms on them.

pub mod hyperloglog;
pub mod number;
