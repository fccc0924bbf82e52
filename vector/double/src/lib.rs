//! A stand-in for Vector where no Vector can be had: it runs, tests and checks exactly the files in `vector/`.
//!
//! ```text
//!  YAML files ─ config ─► topology ─► engine:  sources ─► channel ─► transforms (real VRL) ─► sinks
//!                 │           │
//!                 └ options   └ unit_tests: the `tests:` of the same files
//! ```
//!
//! Only the few components that the pipeline uses exist, and only as far as the pipeline uses them. What they do is held, case by case, to
//! recordings of a real Vector 0.43 (`golden/`). It is stricter than Vector in what it accepts (unknown keys, unused outputs, sinks that read a
//! source directly, listeners on every address), and it is no replacement for it: no buffers on disk, no acknowledgements, no TLS, no reload.
#![forbid(unsafe_code)]

pub mod config;
pub mod engine;
pub mod event;
pub mod sinks;
pub mod sources;
pub mod topology;
pub mod transforms;
pub mod unit_tests;
