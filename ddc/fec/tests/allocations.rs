//! Nothing is allocated per block: counted by an allocator of this test's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ddc_fec::{Decoder, SymbolSet, encode};

thread_local! {
    /// Allocations of this thread; the test harness's other threads do not disturb it.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes unchanged to the system's allocator; counting touches a thread-local cell that needs neither
// allocation nor destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract, which is passed on as it is.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn coding_allocates_nothing() {
    let before_decoder = ALLOCATIONS.get();
    let mut decoder = Decoder::new();
    assert!(ALLOCATIONS.get() > before_decoder, "the counter counts");
    for (k, r, size) in [(64, 8, 1412), (1, 4, 1), (128, 127, 9000), (64, 8, 65535)] {
        let expected: Vec<u8> = (0..k * size).map(|at| (at * 7 + at / 256) as u8).collect();
        let mut sources = expected.clone();
        let mut repair = vec![0; r * size];
        let lost = r.min(k);
        let present = SymbolSet::first(lost).missing(k);
        sources[..lost * size].fill(0);

        let before = ALLOCATIONS.get();
        encode(size, &expected, &mut repair).unwrap();
        let restored = decoder.decode(size, &mut sources, present, &repair, SymbolSet::first(r));
        assert_eq!(ALLOCATIONS.get(), before, "{k}+{r} × {size}");

        assert_eq!(restored, Ok(lost));
        assert!(sources == expected);
    }
}
