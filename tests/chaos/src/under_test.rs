//! The command `steeldb`, for chaos.

use std::process::ExitCode;

fn main() -> ExitCode {
    steeldb::main()
}
