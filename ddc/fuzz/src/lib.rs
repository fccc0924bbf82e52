//! The fuzz targets' bodies as a library; see README.md beside this crate.
#![forbid(unsafe_code)]

pub mod bodies;
