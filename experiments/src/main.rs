//! The `cotenant` command.

fn main() -> std::process::ExitCode {
    cotenant::main()
}
