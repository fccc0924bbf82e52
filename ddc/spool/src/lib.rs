//! The spool: what an egress received and has not settled yet, in a log of segment files.
//!
//! ```text
//!  receive thread ─ Appender ─▶ file ─▶ tail in memory ─▶ Reader ─▶ sink thread
//!                                │ ▲                        ▲  │
//!                     sync thread  └── trimmed below ───────┼──┘ settle, checkpoint
//!                                      the lowest unsettled └ from the file, when it is behind the tail
//! ```
//!
//! It stands between `order` and `unpack` of the line. It keeps bytes: what is in a payload, whether a record is new, what a
//! gap is, is decided by others.
//!
//! A *position* is a place in the log, in bytes; it grows with every frame and is never used twice for something that was
//! settled. [`Spool::open`] gives an [`Appender`], a [`Reader`] and the handle [`Spool`] for everything else. The format
//! and the promises are in docs/spool.md.
//!
//! | module       | what it is for                                                    |
//! |--------------|-------------------------------------------------------------------|
//! | `append`     | writes frames, closes segments, refuses                           |
//! | `read`       | gives them back in order, or one by its position                  |
//! | `condemned`  | drops the oldest segment, once the caller knows what is lost       |
//! | `settled`    | which positions are settled                                       |
//! | `checkpoint` | what survives trimming                                            |
//! | `sync`       | the thread that forces data onto the disk                         |
//! | `recover`    | from a directory to a log                                         |
//! | `scan`       | the frames of one file, and the next one after damage             |
//! | `frame`, `header`, `sessions` | bytes                                            |
//! | `log`, `tail`, `stats` | what the threads share                                  |
//! | `disk`       | what is asked of the file system; replaced in tests               |

#![forbid(unsafe_code)]

mod append;
mod checkpoint;
mod condemned;
mod disk;
mod error;
mod frame;
mod header;
mod log;
mod options;
mod read;
mod recover;
mod report;
mod scan;
mod sessions;
mod settled;
mod spool;
mod stats;
mod sync;
mod tail;
#[cfg(test)]
mod tests;

pub use append::Appender;
pub use bytes::Bytes;
pub use checkpoint::MAX_TABLE;
pub use condemned::{Condemned, Lost, Why};
pub use error::{CheckpointError, Identity, OpenError, ReadError, Refused};
pub use frame::{FRAME_HEADER, Frame, Head, MAX_FRAME_BYTES, Span};
pub use header::{FORMAT_VERSION, MAX_IDENTITY};
pub use options::{BadOption, Fsync, FsyncObserver, MIN_SEGMENTS, Options, SEGMENT_BYTES, WhenFull};
pub use read::{Next, Reader};
pub use report::{Finding, MAX_FINDINGS, OpenReport};
pub use scan::Damage;
pub use sessions::{MAX_SESSIONS, SessionMark};
pub use settled::SettleError;
pub use spool::{Opened, Spool};
pub use stats::{Counts, Stats};
