//! The Ferrite server as a library.
