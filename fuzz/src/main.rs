//! libFuzzer over one of the targets, named by `$FUZZ_TARGET`. `scripts/fuzz` runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = onceflow_fuzz::TARGETS.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} names no target")).1
});

/// Gives signal handlers a stack of their own: an overflow of the real one is a finding, and libFuzzer must be able to say which input
/// brought it about. (Rust's own start-up would do this, but here `main` is libFuzzer's.)
fn use_signal_stack() {
    const BYTES: usize = 1 << 18;
    let stack = Box::leak(vec![0u8; BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: BYTES };
    // SAFETY: the stack lives as long as the process and belongs to this thread, the only one that runs targets; the handler that
    // is installed is the default one, whose flags libFuzzer takes over for its own.
    unsafe {
        libc::sigaltstack(&stack, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = libc::SA_ONSTACK;
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

fuzz_target!(init: {
    use_signal_stack();
    LazyLock::force(&TARGET);
}, |bytes: &[u8]| {
    TARGET(bytes)
});
