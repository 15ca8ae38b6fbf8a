//! The `curtsy` command.
fn main() {}
