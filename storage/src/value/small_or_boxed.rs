//! One machine word that owns either a small buffer or a boxed large structure.
//!
//! An enum of the two takes two words, and a word per key is what small collections cannot spare. Both kinds of pointer
//! are aligned to eight bytes, so the lowest bit tells them apart: clear for the buffer, set for the box.

use std::{marker::PhantomData, ptr::NonNull};

use super::thin_buffer::ThinBuffer;

const BOXED: usize = 1;

/// See the module's description.
pub(crate) struct SmallOrBoxed<T> {
    /// Invariant: owned; either from `ThinBuffer::into_raw`, or from `Box::<T>::into_raw` plus [`BOXED`].
    word: NonNull<u8>,
    owns: PhantomData<(ThinBuffer, Box<T>)>,
}

// SAFETY: it owns one of the two, as an enum would.
unsafe impl<T: Send> Send for SmallOrBoxed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for SmallOrBoxed<T> {}

/// Which of the two is held; `S` and `T` are references or owned.
pub(crate) enum Held<S, T> {
    Small(S),
    Boxed(T),
}

impl<T> SmallOrBoxed<T> {
    pub(crate) fn small(buffer: ThinBuffer) -> Self {
        SmallOrBoxed {
            word: buffer.into_raw(),
            owns: PhantomData,
        }
    }

    pub(crate) fn boxed(value: T) -> Self {
        const { assert!(align_of::<T>() > BOXED) }
        let raw = NonNull::from(Box::leak(Box::new(value))).cast::<u8>();
        SmallOrBoxed {
            word: raw.map_addr(|address| address | BOXED),
            owns: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> Held<&ThinBuffer, &T> {
        match self.boxed_pointer() {
            // SAFETY: by the invariant it points to a `T` that `self` owns and lends out.
            Some(pointer) => Held::Boxed(unsafe { pointer.as_ref() }),
            // SAFETY: `ThinBuffer` is a transparent wrapper of such a pointer, and with the mark clear `word` is one.
            None => Held::Small(unsafe { &*std::ptr::from_ref(&self.word).cast() }),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> Held<&mut ThinBuffer, &mut T> {
        match self.boxed_pointer() {
            // SAFETY: as in `get`; `&mut self` makes the borrow unique.
            Some(mut pointer) => Held::Boxed(unsafe { pointer.as_mut() }),
            // SAFETY: as in `get`. Whatever the buffer becomes, its pointer stays aligned, so the mark stays clear.
            None => Held::Small(unsafe { &mut *std::ptr::from_mut(&mut self.word).cast() }),
        }
    }

    #[inline]
    fn boxed_pointer(&self) -> Option<NonNull<T>> {
        let marked = self.word.addr().get() & BOXED != 0;
        marked.then(|| {
            let pointer = self.word.as_ptr().map_addr(|address| address & !BOXED);
            // SAFETY: the mark was added to an aligned, non-null pointer, which is what is left without it.
            unsafe { NonNull::new_unchecked(pointer.cast()) }
        })
    }
}

impl<T: Clone> Clone for SmallOrBoxed<T> {
    fn clone(&self) -> Self {
        match self.get() {
            Held::Small(buffer) => SmallOrBoxed::small(buffer.clone()),
            Held::Boxed(value) => SmallOrBoxed::boxed(value.clone()),
        }
    }
}

impl<T> Drop for SmallOrBoxed<T> {
    fn drop(&mut self) {
        match self.boxed_pointer() {
            // SAFETY: it came from a box, and this is the last use of it.
            Some(pointer) => drop(unsafe { Box::from_raw(pointer.as_ptr()) }),
            // SAFETY: it came from `ThinBuffer::into_raw`, and this is the last use of it.
            None => drop(unsafe { ThinBuffer::from_raw(self.word) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn holds_one_or_the_other_in_one_word() {
        assert_eq!(
            size_of::<Option<SmallOrBoxed<Rc<u8>>>>(),
            size_of::<usize>()
        );
        let counted = Rc::new(7u8);
        let mut held = SmallOrBoxed::boxed(counted.clone());
        let clone = held.clone();
        assert_eq!(Rc::strong_count(&counted), 3);
        assert!(matches!(clone.get(), Held::Boxed(value) if **value == 7));
        held = SmallOrBoxed::small(ThinBuffer::new());
        assert_eq!(Rc::strong_count(&counted), 2);
        let Held::Small(buffer) = held.get_mut() else {
            panic!("a buffer is left behind")
        };
        buffer.splice(0, 0, &[b"abc"]);
        assert!(matches!(held.clone().get(), Held::Small(buffer) if buffer.as_slice() == b"abc"));
        drop((held, clone));
        assert_eq!(Rc::strong_count(&counted), 1);
    }
}
