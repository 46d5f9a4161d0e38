//! Group commit for stores that have none of their own, or none for one order of all writers: a thread takes what has come since its last commit.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Hands records to a thread that commits them together.
pub struct GroupCommit {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    appended: u64,
    committed: u64,
    failure: Option<String>,
    is_closing: bool,
}

impl GroupCommit {
    /// `commit` puts so many records on the disk, behind all before them.
    pub fn new(mut commit: impl FnMut(u64) -> anyhow::Result<()> + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut state = own.lock();
            loop {
                state = own
                    .work
                    .wait_while(state, |state| state.appended == state.committed && !state.is_closing)
                    .unwrap_or_else(PoisonError::into_inner);
                let (upto, count) = (state.appended, state.appended - state.committed);
                if count == 0 {
                    return;
                }
                drop(state);
                let failure = commit(count).err();
                state = own.lock();
                state.committed = upto;
                state.failure = failure.map(|failure| failure.to_string());
                own.done.notify_all();
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// One record more; it is on the disk when this returns.
    pub fn append(&self) -> anyhow::Result<()> {
        let mut state = self.shared.lock();
        state.appended += 1;
        let own = state.appended;
        self.shared.work.notify_one();
        let state =
            self.shared.done.wait_while(state, |state| state.committed < own).unwrap_or_else(PoisonError::into_inner);
        state.failure.clone().map_or(Ok(()), |failure| Err(anyhow::anyhow!(failure)))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
