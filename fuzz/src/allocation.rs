//! How much memory a call takes: bytes from disk or from Kafka must not be able to ask for more than their own length justifies.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with an account for each thread.
struct Accountant;

#[global_allocator]
static ALLOCATOR: Accountant = Accountant;

thread_local! {
    /// Bytes that this thread has allocated less those it has freed. Negative where it frees what others allocated.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that [`HELD`] has been since the last call of [`peak_of`].
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn account(bytes: isize) {
    // A thread that is ending has no account any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; the account is kept in cells that need no allocation.
unsafe impl GlobalAlloc for Accountant {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        account(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        account(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        account(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        account(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `body` and returns its result and the most bytes that this thread held meanwhile, beyond those it held before.
pub fn peak_of<T>(body: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = body();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

/// Runs `body`, and panics if it held more than `bound` bytes.
pub fn bounded<T>(what: &str, bound: usize, body: impl FnOnce() -> T) -> T {
    let (result, peak) = peak_of(body);
    assert!(peak <= bound, "{what} held {peak} bytes, more than {bound}");
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_seen() {
        let (length, peak) = peak_of(|| {
            drop(vec![1u8; 100_000]);
            vec![2u8; 10].len()
        });
        assert_eq!(length, 10);
        assert!((100_000..101_000).contains(&peak), "{peak}");
    }

    #[test]
    #[should_panic(expected = "more than 5")]
    fn too_much_is_reported() {
        bounded("this", 5, || vec![1u8; 6]);
    }
}
