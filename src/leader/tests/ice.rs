//! Processes that stand still, as a machine under load or a virtual machine may.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Stops a process from being polled, and lets it go on.
#[derive(Clone, Default)]
pub(super) struct Ice(Arc<(AtomicBool, Mutex<Option<Waker>>)>);

impl Ice {
    pub(super) fn freeze(&self, frozen: bool) {
        self.0.0.store(frozen, Ordering::Relaxed);
        if let Some(waker) = self.0.1.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// A process that stands still while it is frozen.
    pub(super) fn around<F: Future>(&self, process: F) -> Freezable<F> {
        Freezable { ice: self.clone(), process: Box::pin(process) }
    }
}

pub(super) struct Freezable<F> {
    ice: Ice,
    process: Pin<Box<F>>,
}

impl<F: Future> Future for Freezable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.ice.0.0.load(Ordering::Relaxed) {
            *self.ice.0.1.lock().unwrap() = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.process.as_mut().poll(context)
    }
}
