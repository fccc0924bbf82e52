//! UDP sockets for one-way links: batches, buffer sizes, drop counters, pacing clock.
