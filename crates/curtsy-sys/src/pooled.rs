//! A pinned box whose memory is used again by the next one on the same thread.
//!
//! A future that is made for each request is large. Whoever is handed it moves it; kept with its connection, it is cold
//! when its turn comes, with a thousand connections. In a pooled box it is made once and stays, what is handed about is
//! as large as a pointer, and the memory is that of the request before, which the processor still has at hand.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// How much memory a thread keeps for its next boxes, in bytes. What is freed beyond it goes back to the allocator.
const KEPT_MOST: usize = 64 << 10;

/// A box that does not move what is in it.
///
/// ```
/// use curtsy_sys::pooled::Pooled;
///
/// let mut text = Pooled::new(String::from("text"));
/// text.as_mut().push('s');
/// assert_eq!(*text.as_mut(), "texts");
/// ```
pub struct Pooled<T>(NonNull<T>, PhantomData<T>);

// It does not move what is in it, wherever it goes itself.
impl<T> Unpin for Pooled<T> {}

// SAFETY: it owns the value as a `Box` does; its memory may be freed on any thread, and is then kept there.
unsafe impl<T: Send> Send for Pooled<T> {}

impl<T> Pooled<T> {
    /// Boxes a value.
    #[inline(always)]
    pub fn new(value: T) -> Self {
        let place: NonNull<T> = take(Layout::new::<T>()).cast();
        // SAFETY: the memory is allocated for a `T`, and nobody else refers to it.
        unsafe { place.write(value) };
        Self(place, PhantomData)
    }

    /// What is in it, which stays where it is until it is dropped.
    #[inline(always)]
    pub fn as_mut(&mut self) -> Pin<&mut T> {
        // SAFETY: the value is there until this is dropped, and is dropped in place.
        unsafe { Pin::new_unchecked(self.0.as_mut()) }
    }
}

impl<T: Future> Future for Pooled<T> {
    type Output = T::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T::Output> {
        self.get_mut().as_mut().poll(cx)
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value is there until this is dropped, and only who has this mutably changes it.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Pooled<T> {
    #[inline]
    fn drop(&mut self) {
        /// Gives the memory back, also when the value's drop panics.
        struct Memory<T>(NonNull<T>);

        impl<T> Drop for Memory<T> {
            #[inline]
            fn drop(&mut self) {
                // SAFETY: it was taken with this layout, and what was in it is gone.
                unsafe { give(self.0.cast(), Layout::new::<T>()) };
            }
        }

        let memory = Memory(self.0);
        // SAFETY: the value is there, and nobody refers to it any more.
        unsafe { memory.0.drop_in_place() };
    }
}

impl<T> fmt::Debug for Pooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").finish_non_exhaustive()
    }
}

/// What a thread keeps, the latest towards the end.
struct Kept {
    pieces: Vec<(Layout, NonNull<u8>)>,
    bytes: usize,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (layout, piece) in self.pieces.drain(..) {
            // SAFETY: it was allocated with this layout, and whoever had it gave it back.
            unsafe { dealloc(piece.as_ptr(), layout) };
        }
    }
}

thread_local! {
    static KEPT: RefCell<Kept> = const {
        RefCell::new(Kept { pieces: Vec::new(), bytes: 0 })
    };
}

/// Memory of that layout: what was given back lately on this thread, if there is some.
#[inline(always)]
fn take(layout: Layout) -> NonNull<u8> {
    if layout.size() == 0 {
        return layout.dangling_ptr();
    }
    // A thread that ends keeps nothing.
    let kept = KEPT.try_with(|kept| {
        let kept = &mut *kept.borrow_mut();
        let place = kept.pieces.iter().rposition(|(of, _)| *of == layout)?;
        kept.bytes -= layout.size();
        Some(kept.pieces.swap_remove(place).1)
    });
    match kept {
        Ok(Some(piece)) => piece,
        Ok(None) | Err(_) => allocate(layout),
    }
}

#[cold]
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: its size is not zero.
    let piece = unsafe { alloc(layout) };
    NonNull::new(piece).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Gives memory back.
///
/// # Safety
/// It was taken with this layout and is given back once, with nothing in it.
#[inline]
unsafe fn give(piece: NonNull<u8>, layout: Layout) {
    if layout.size() == 0 {
        return;
    }
    let is_kept = KEPT.try_with(|kept| {
        let kept = &mut *kept.borrow_mut();
        let fits = kept.bytes + layout.size() <= KEPT_MOST;
        if fits {
            kept.bytes += layout.size();
            kept.pieces.push((layout, piece));
        }
        fits
    });
    if is_kept != Ok(true) {
        // SAFETY: by the caller's promise, it was allocated with this layout and nobody refers to it.
        unsafe { dealloc(piece.as_ptr(), layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    fn address<T>(boxed: &mut Pooled<T>) -> *const T {
        &*boxed.as_mut()
    }

    #[test]
    fn the_next_takes_the_memory_of_the_last() {
        let mut first = Pooled::new([1_u64; 40]);
        let mut other = Pooled::new([1_u32; 40]);
        let (place, elsewhere) = (address(&mut first), address(&mut other));
        drop(first);
        drop(other);
        let mut second = Pooled::new([2_u64; 40]);
        assert_eq!((address(&mut second), second.as_mut()[39]), (place, 2));
        assert_eq!(address(&mut Pooled::new([3_u32; 40])), elsewhere);
        let mut third = Pooled::new([3_u64; 40]);
        assert_ne!(address(&mut third), place);
    }

    #[test]
    fn so_much_is_kept_and_no_more() {
        let large: Vec<_> = (0..10).map(|_| Pooled::new([0_u8; 10_000])).collect();
        drop(large);
        let (pieces, bytes) = KEPT.with_borrow(|kept| (kept.pieces.len(), kept.bytes));
        assert_eq!((pieces, bytes), (6, 60_000));
        drop(Pooled::new(()));
        drop(Pooled::new([0_u8; KEPT_MOST + 1]));
        assert_eq!(KEPT.with_borrow(|kept| kept.pieces.len()), 6);
    }

    #[test]
    fn values_are_dropped_once() {
        let counted = Arc::new(());
        let boxed: Vec<_> = (0..3).map(|_| Pooled::new(counted.clone())).collect();
        assert_eq!(Arc::strong_count(&counted), 4);
        drop(boxed);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn a_panic_loses_no_memory() {
        struct Loud([u64; 50]);
        impl Drop for Loud {
            fn drop(&mut self) {
                assert_eq!(self.0[0], 0, "as it should");
            }
        }
        let mut quiet = Pooled::new(Loud([0; 50]));
        let place = address(&mut quiet);
        drop(quiet);
        let mut loud = Pooled::new(Loud([1; 50]));
        assert_eq!(address(&mut loud), place);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(loud))).is_err());
        assert_eq!(address(&mut Pooled::new(Loud([0; 50]))), place);
    }

    #[test]
    fn one_is_made_while_another_is_made_or_dropped() {
        struct Outer(Option<Pooled<u64>>);
        impl Drop for Outer {
            fn drop(&mut self) {
                let again = Pooled::new(3_u64);
                self.0 = Some(again);
            }
        }
        let mut outer = Pooled::new(Outer(Some(Pooled::new(1_u64))));
        assert_eq!(
            outer.as_mut().0.as_mut().map(|inner| *inner.as_mut()),
            Some(1)
        );
    }

    #[test]
    fn it_may_end_on_another_thread_and_at_a_threads_end() {
        thread_local! {
            static LAST: RefCell<Option<Pooled<[u64; 30]>>> = const { RefCell::new(None) };
        }
        let mut value = Pooled::new(vec![1, 2, 3]);
        let sum = std::thread::spawn(move || {
            LAST.set(Some(Pooled::new([0; 30])));
            value.as_mut().iter().sum::<i32>()
        });
        assert_eq!(sum.join().unwrap(), 6);
    }
}
