//! The catalogue of metrics, counters, exposition, logs and service notification.
