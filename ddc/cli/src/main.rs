//! The `ddc` command.
fn main() {}
