//! The black-box harness.
