//! The tasks of a process: they stand still with it, and go with it. A panic in one of them is told.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context as Poller, Poll, Waker},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::task::AbortHandle;

/// Stops all tasks of a process from being polled, and lets them go on.
#[derive(Clone, Default)]
struct Ice(Arc<IceState>);

#[derive(Default)]
struct IceState {
    frozen: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Ice {
    fn freeze(&self) {
        self.0.frozen.store(true, Ordering::Relaxed);
    }

    fn thaw(&self) {
        self.0.frozen.store(false, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A task that stands still while its process does.
struct Freezable<F> {
    ice: Ice,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Freezable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Poller<'_>) -> Poll<F::Output> {
        if self.ice.0.frozen.load(Ordering::Relaxed) {
            let mut waiting = self.ice.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}

/// What tasks of processes have panicked with, in one run of a workflow: the runtime would keep it to itself, and a task that
/// ends so looks like one that has nothing left to do.
#[derive(Clone, Default)]
pub(crate) struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    /// What has come since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, words: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }
}

/// What somebody panicked with.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}

/// The tasks of one process.
#[derive(Clone, Default)]
pub(super) struct Tasks {
    ice: Ice,
    handles: Arc<Mutex<Vec<AbortHandle>>>,
    /// Those that have not ended.
    alive: Arc<AtomicUsize>,
    panics: Panics,
}

impl Tasks {
    pub(super) fn new(panics: &Panics) -> Self {
        Self { panics: panics.clone(), ..Self::default() }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the process keeps the handle, and ends the task with itself"
    )]
    pub(super) fn launch(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        let (alive, panics) = (Alive::new(&self.alive), self.panics.clone());
        let counted = async move {
            let _alive = alive;
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                panics.note(words_of(&*panic));
            }
        };
        let handle =
            tokio::spawn(Freezable { ice: self.ice.clone(), task: Box::pin(counted) }).abort_handle();
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|task| !task.is_finished());
        handles.push(handle.clone());
        handle
    }

    /// Whether one of them has not ended.
    pub(super) fn busy(&self) -> bool {
        self.alive.load(Ordering::Relaxed) > 0
    }

    pub(super) fn freeze(&self) {
        self.ice.freeze();
    }

    pub(super) fn thaw(&self) {
        self.ice.thaw();
    }

    pub(super) fn frozen(&self) -> bool {
        self.ice.0.frozen.load(Ordering::Relaxed)
    }

    /// Ends all of them.
    pub(super) fn abort(&self) {
        let handles = std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        handles.iter().for_each(AbortHandle::abort);
    }
}

/// Counts a task for as long as it is there: until it ends, or is taken away.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
