//! A closure over borrowed things, lent to code that is called meanwhile and cannot be handed it.
//!
//! An interpreter calls functions that were made long before the call at hand, so that these cannot borrow what that call
//! works on. To make them anew for every call costs more than many a script.

use std::{cell::Cell, mem, ptr::NonNull};

type Closure<R> = dyn FnMut() -> R;

/// Where a closure is found while it is lent.
pub struct Lent<R>(Cell<Option<NonNull<Closure<R>>>>);

impl<R> Default for Lent<R> {
    fn default() -> Lent<R> {
        Lent(Cell::new(None))
    }
}

impl<R: 'static> Lent<R> {
    /// Does the work, during which [`Lent::call`] calls the closure. If another one is lent it is called no more.
    pub fn during<T>(&self, closure: &mut (dyn FnMut() -> R + '_), work: impl FnOnce() -> T) -> T {
        struct End<'a, R>(&'a Lent<R>);
        impl<R> Drop for End<'_, R> {
            fn drop(&mut self) {
                self.0.0.set(None);
            }
        }
        let borrowed: NonNull<dyn FnMut() -> R + '_> = NonNull::from(closure);
        // SAFETY: Only the lifetime in the type changes. The pointer is in the slot while this call lasts, which borrows
        // the closure, and `End` takes it out also when the work panics; `call` puts back only what it took meanwhile.
        let lent = unsafe {
            mem::transmute::<NonNull<dyn FnMut() -> R + '_>, NonNull<Closure<R>>>(borrowed)
        };
        let _end = End(self);
        self.0.set(Some(lent));
        work()
    }

    /// What the closure returns; `None` if none is lent, or it is being called.
    pub fn call(&self) -> Option<R> {
        struct Back<'a, R>(&'a Lent<R>, NonNull<Closure<R>>);
        impl<R> Drop for Back<'_, R> {
            fn drop(&mut self) {
                self.0.0.set(Some(self.1));
            }
        }
        let mut back = Back(self, self.0.take()?);
        // SAFETY: It was in the slot, so that the call of `during` which borrows it has not ended, nor can it before this
        // returns, being further down on the same stack. It was taken out, so that nobody else calls it meanwhile.
        Some(unsafe { back.1.as_mut() }())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::Lent;

    #[test]
    fn a_closure_is_there_while_it_is_lent() {
        let lent = Lent::default();
        assert_eq!(lent.call(), None);
        let mut count = 0;
        let mut closure = || {
            count += 1;
            count
        };
        let last = lent.during(&mut closure, || {
            lent.call();
            lent.call()
        });
        assert_eq!((last, count, lent.call()), (Some(2), 2, None));
    }

    #[test]
    fn it_is_not_called_by_itself() {
        let lent = Lent::default();
        let mut inner = Some(0);
        lent.during(&mut || inner = lent.call().map(|()| 1), || {
            assert_eq!(lent.call(), Some(()));
            assert_eq!(lent.call(), Some(()));
        });
        assert_eq!(inner, None);
    }

    #[test]
    fn it_is_gone_after_a_panic() {
        let lent = Lent::<()>::default();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            lent.during(&mut || panic!("in the closure"), || lent.call())
        }));
        assert!(outcome.is_err());
        assert_eq!(lent.call(), None);
    }
}
