//! DDC's wire format: header, blocks, batches, heartbeats; encode and decode over byte slices.
