//! Catches the panic of one operation, so that it ends that operation only.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static IS_PANIC_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// A future that ends with an error where the one within panics.
///
/// Shared state stays consistent: its owners change it as a whole or not at all.
pub(crate) struct CatchPanic<F>(Pin<Box<F>>);

/// It panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Keeps a panic of this future within it.
pub(crate) fn catch_panic<F: Future>(future: F) -> CatchPanic<F> {
    CatchPanic(Box::pin(future))
}

/// Whether a panic of this thread, now, ends no more than one request.
pub(crate) fn is_panic_caught() -> bool {
    IS_PANIC_CAUGHT.get()
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let before = IS_PANIC_CAUGHT.replace(true);
        let polled: Result<_, Box<dyn Any + Send>> =
            catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context)));
        IS_PANIC_CAUGHT.set(before);
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn catch_panic_returns_an_error_and_restores_the_flag() {
        let contained = catch_panic(async {
            assert!(is_panic_caught());
            tokio::task::yield_now().await;
            let nothing: [u8; 0] = [];
            nothing[std::hint::black_box(1)]
        });
        assert!(contained.await.is_err());
        assert!(!is_panic_caught());
        assert_eq!(catch_panic(async { 1 }).await.ok(), Some(1));
    }
}
