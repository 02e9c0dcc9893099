//! Prints the tables of `docs/analytic-model.md` that compare the analytic model with published
//! measurements: `cargo run -p cotenant-profiles --example accuracy`.

#![allow(clippy::print_stdout)]

mod tables;

fn main() {
    print!("{}", tables::markdown());
}
