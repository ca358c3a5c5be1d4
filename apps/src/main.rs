//! wirestack
fn main() {}
