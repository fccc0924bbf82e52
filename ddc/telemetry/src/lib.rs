//! What the two proxies say about themselves: metrics, logs, and word to the service manager.
//!
//! ```text
//!   source thread ─┐                         ┌─► exposition: the /metrics page
//!   link thread   ─┼─► atomics (catalogue) ──┤
//!   receive, sink ─┘                         └─► docs: docs/metrics.md
//!                 └─► ticks ─► notify: systemd's watchdog, `ddc_process_ticks_total`
//!                 └─► tracing ─► log: stderr, text or JSON
//! ```
//!
//! * [`catalogue`] is the one table of metrics; a metric outside it does not compile.
//! * [`reasons`] lists the values of the `reason` labels; nothing else can become a label value at run time.
//! * [`cells`] are the atomics the hot path adds to: no lock, no allocation, no formatting.
//! * [`exposition`] writes the Prometheus text format.
//! * [`mod@docs`] writes the catalogue as Markdown.
//! * [`log`] sets up the log and holds the rate limit of repeated messages.
//! * [`notify`] talks to systemd and watches that every thread of the data path moves.
//!
//! It opens no listener and starts no thread: the process around it does.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod cells;
pub mod docs;
pub mod exposition;
pub mod log;
pub mod notify;
pub mod process;
pub mod reasons;

pub use catalogue::{CommonMetrics, EgressMetrics, IngressMetrics, ProcessMetrics};
pub use cells::{Counter, Counters, Gauge, Histogram, HistogramBuffer, Reading, Side};
pub use exposition::{Identity, LinkMetrics, Registry};
