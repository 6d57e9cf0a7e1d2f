//! Values and the pure algorithms on them.

pub mod arena_table;
pub mod element;
pub mod hash;
pub mod hyperloglog;
pub mod int_set;
pub mod number;
pub mod packed;
pub mod set;
mod small_or_boxed;
mod thin_buffer;
