//! Erasure coding for blocks of equal-sized symbols: lose any r' symbols of k' + r', get all of them back.
//!
//! ```text
//!   ingress: pack ─▶ encode ─▶ seal                      egress: open ─▶ Decoder ─▶ order
//!
//!   sources  │ 0 │ 1 │ 2 │ … │ k'-1 │   contiguous, k'·S bytes (the last symbol zero-padded by the caller)
//!   repair   │ 0 │ 1 │ … │ r'-1 │       contiguous, r'·S bytes; repair 0 is the XOR of all sources
//! ```
//!
//! The code is systematic Reed-Solomon over GF(2^8): source symbols travel as they are, so nothing is computed at
//! the egress while nothing is missing. The coefficients are those of a scaled Cauchy matrix (`matrix.rs`) that
//! depends neither on k' nor on r': a short block uses the upper left corner of the same matrix.
//!
//! This crate knows bytes only. It has no packets, no clock, no I/O; it cannot detect a *wrong* symbol (the seal
//! does that), and it does not choose when to give a block up (`ddc-link` does).
//!
//! Memory: [`encode`] allocates nothing. A [`Decoder`] allocates its tables (16 KiB) when it is made and nothing
//! afterwards, whatever the size of the symbols. No input makes either panic.

#![forbid(unsafe_code)]

mod code;
mod decoder;
mod encoder;
mod field;
mod kernel;
mod matrix;
mod shape;
mod symbol_set;

pub use code::{Code, CodeError, ParseCodeError};
pub use decoder::{DecodeError, Decoder};
pub use encoder::encode;
pub use shape::ShapeError;
pub use symbol_set::SymbolSet;

/// Most source symbols in one block (k').
pub const MAX_SOURCES: usize = 128;

/// Most repair symbols in one block (r').
pub const MAX_REPAIRS: usize = 127;
