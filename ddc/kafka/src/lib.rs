//! What rdkafka lacks, over its FFI: topic ids, batch reads, client settings.
