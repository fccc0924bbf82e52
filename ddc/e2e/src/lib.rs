//! End-to-end tests with real brokers, real sockets and network namespaces.
