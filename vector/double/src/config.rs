//! The configuration: several YAML files, interpolated, merged, every key checked against the tables in [`options`].

mod interpolate;
mod load;
pub mod options;
mod shape;

pub use interpolate::{InterpolationError, interpolate};
pub(crate) use load::texts;
pub use load::{Config, Loaded, Sink, Source, TestCase, Transform, load};
pub(crate) use shape::unknown;
pub use shape::{Field, Shape, check};

use std::path::PathBuf;

/// One thing that is wrong in the files: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was given on the command line.
    pub file: PathBuf,
    /// The component or section, for example `sinks.exporter.buckets`.
    pub place: String,
    /// What is wrong and what to do.
    pub message: String,
}
