//! What the two proxies say about themselves: metrics, logs, and word to the service manager.
//!
//! ```text
//!   source thread ─┐                         ┌─► exposition: the /metrics page
//!   link thread   ─┼─► atomics (catalogue) ──┼─► statsd: datagrams to collectors, each second
//!   receive, sink ─┘                         └─► docs: docs/metrics.md
//!                 └─► ticks ─► notify: systemd's watchdog, `ddc_process_ticks_total`
//!                 └─► tracing ─┬─► log: stderr, text or JSON
//!                              └─► syslog: collectors over UDP, TCP and Unix sockets
//! ```
//!
//! * [`catalogue`] is the one table of metrics; a metric outside it does not compile.
//! * [`reasons`] lists the values of the `reason` labels; nothing else can become a label value at run time.
//! * [`cells`] are the atomics the hot path adds to: no lock, no allocation, no formatting.
//! * [`exposition`] writes the Prometheus text format.
//! * [`statsd`] sends what has changed to StatsD collectors; [`vectors`] are its test vectors.
//! * [`mod@docs`] writes the catalogue as Markdown.
//! * [`log`] sets up the log and holds the rate limit of repeated messages.
//! * [`syslog`] sends log messages to collectors.
//! * [`notify`] talks to systemd and watches that every thread of the data path moves.
//!
//! It opens no listener. Threads are started only for collectors that the configuration names, one for StatsD, one for each syslog
//! target, and none of them touches the data path.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod cells;
pub mod docs;
pub mod exposition;
pub mod log;
pub mod notify;
pub mod process;
pub mod reasons;
pub mod statsd;
pub mod syslog;
pub mod vectors;

pub use catalogue::{CommonMetrics, EgressMetrics, IngressMetrics, ProcessMetrics};
pub use cells::{Counter, Counters, Gauge, Histogram, HistogramBuffer, Reading, Side};
pub use exposition::{Identity, LinkMetrics, Registry};
