//! The command `steeldb`; everything is in the library beside it.

use std::process::ExitCode;

// What chaos runs is a command of its own, of the same library.
const _: () = assert!(!steeldb_replica::IS_FOR_TESTS_ALONE, "liars and planted bugs are not for users");

fn main() -> ExitCode {
    steeldb::main()
}
