//! Generators and drift checks.
fn main() {}
