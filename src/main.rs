//! Parses the command line, dispatches, and exits with a documented code.

fn main() {}
