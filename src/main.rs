//! Parse, dispatch, exit code. No runtime here: `demo` makes its namespaces before the first thread.

fn main() -> std::process::ExitCode {
    matterbind::main(std::env::args_os()).into()
}
