//! The `onceflow` binary.

use std::process::ExitCode;

/// Over C's malloc too: librdkafka allocates a message on one thread and frees it on another, which glibc's does badly (half the
/// cost of consuming).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    onceflow::cli::main()
}
