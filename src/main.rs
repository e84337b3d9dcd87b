//! The operator's program: reads its settings and runs the controllers.

fn main() {}
