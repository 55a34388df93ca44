//! Detached tasks that nothing may cancel: each sends one creation and saves the key's value.
//!
//! A dropped future is a crash. A reconcile may be dropped at any `.await` (a lost Lease, SIGTERM, a replaced object),
//! and a value that is shown once would be lost with it. So the stretch from the request to the saved value runs
//! here, and shutdown waits for it. Nothing else belongs here.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::BoxFuture;
use tokio_util::task::TaskTracker;

/// How a task is detached: by the runtime in production; in tests of what a crash leaves behind, so that it can be stopped
/// at any moment.
pub type Spawn = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// The running saves of this process. Clones share them.
#[derive(Clone)]
pub struct Saves {
    spawn: Spawn,
    tasks: TaskTracker,
    state: Arc<Mutex<State>>,
}

impl Default for Saves {
    fn default() -> Self {
        Self::spawned_by(Arc::new(on_the_runtime))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a save is let go; the tracker waits for it"
)]
fn on_the_runtime(save: BoxFuture<'static, ()>) {
    drop(tokio::spawn(save));
}

#[derive(Debug, Default)]
struct State {
    running: HashSet<String>,
    closed: bool,
}

/// Why a save was not begun; its future was dropped without being polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// The attempt's save is running in this process: an attempt is sent at most once.
    #[error("failed to begin a save: one is running for this attempt")]
    Running,
    /// The process is shutting down.
    #[error("failed to begin a save: the process is shutting down")]
    ShuttingDown,
}

impl Saves {
    /// Without any saves yet; `spawn` is how they will be detached.
    #[must_use]
    pub fn spawned_by(spawn: Spawn) -> Self {
        Self { spawn, tasks: TaskTracker::new(), state: Arc::default() }
    }

    /// Begins the save of an attempt; it then runs to its end whatever becomes of the caller.
    ///
    /// # Errors
    /// When a save of the attempt is running, or [`wait_all`](Self::wait_all) was called.
    pub fn spawn<F>(&self, attempt: String, save: F) -> Result<(), NotBegun>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(NotBegun::ShuttingDown);
            }
            if !state.running.insert(attempt.clone()) {
                return Err(NotBegun::Running);
            }
            // Tracked before the lock is released, so that a shutdown that begins now waits for this save.
            let running = Running { attempt, state: Arc::clone(&self.state) };
            (self.spawn)(Box::pin(self.tasks.track_future(async move {
                let _running = running;
                save.await;
            })));
        }
        Ok(())
    }

    /// Whether the attempt's save runs in this process: from before [`spawn`](Self::spawn) returns until the future has
    /// ended, also if it panicked.
    #[must_use]
    pub fn running(&self, attempt: &str) -> bool {
        lock(&self.state).running.contains(attempt)
    }

    /// Refuses new saves and waits until every running one has ended. For shutdown.
    pub async fn wait_all(&self) {
        lock(&self.state).closed = true;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Marks an attempt as running until it is dropped.
struct Running {
    attempt: String,
    state: Arc<Mutex<State>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.state).running.remove(&self.attempt);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_save_runs_from_spawn_to_its_end() {
        let saves = Saves::default();
        let (finish, finished) = oneshot::channel::<()>();
        saves.spawn("one".into(), finished.map(drop)).unwrap();
        assert!(saves.running("one") && !saves.running("two"));
        finish.send(()).unwrap();
        saves.wait_all().await;
        assert!(!saves.running("one"));
    }

    #[tokio::test]
    async fn a_save_that_panics_is_over() {
        let saves = Saves::default();
        saves.spawn("one".into(), async { panic!("on purpose") }).unwrap();
        assert!(saves.running("one"));
        saves.wait_all().await;
        assert!(!saves.running("one"));
    }

    #[tokio::test]
    async fn a_save_outlives_the_caller_that_began_it() {
        let saves = Saves::default();
        let (finish, finished) = oneshot::channel::<()>();
        let (answer, answered) = oneshot::channel();
        let caller = {
            let saves = saves.clone();
            async move {
                let save = async move {
                    finished.await.unwrap();
                    answer.send("saved").unwrap();
                };
                saves.spawn("one".into(), save).unwrap();
                std::future::pending::<()>().await;
            }
        };
        assert!(caller.now_or_never().is_none(), "the caller is polled once, then dropped");
        finish.send(()).unwrap();
        assert_eq!(answered.await, Ok("saved"));
    }

    #[tokio::test]
    async fn an_attempt_is_not_sent_twice_at_the_same_time() {
        let saves = Saves::default();
        saves.spawn("one".into(), std::future::pending()).unwrap();
        assert_eq!(saves.spawn("one".into(), async {}), Err(NotBegun::Running));
        assert_eq!(saves.spawn("two".into(), async {}), Ok(()));
    }

    #[tokio::test]
    async fn shutdown_waits_and_lets_nothing_new_begin() {
        let saves = Saves::default();
        let (finish, finished) = oneshot::channel::<()>();
        saves.spawn("one".into(), finished.map(drop)).unwrap();
        let mut waiting = Box::pin(saves.wait_all());
        assert!(waiting.as_mut().now_or_never().is_none(), "a save is running");
        assert_eq!(saves.spawn("two".into(), async {}), Err(NotBegun::ShuttingDown));
        finish.send(()).unwrap();
        waiting.await;
    }
}
