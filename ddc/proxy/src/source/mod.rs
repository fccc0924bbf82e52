//! Where records come from: the left end of the line.

pub mod commit;
pub mod history;
pub mod kafka;
mod letters;
mod lookup;
pub mod metadata;
pub mod outlet;
pub mod preflight;
pub mod start;
mod starting;
mod topics;
pub mod udp;
