//! DDC's link protocol as state machines without I/O.
