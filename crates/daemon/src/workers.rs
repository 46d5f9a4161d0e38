//! One thread with one single-threaded runtime for each core: what is accepted on a thread stays there.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;

use crate::pulse::Beat;

/// Threads that run until their future ends.
#[must_use = "a program waits for its workers"]
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    beats: Vec<Beat>,
}

/// How many workers: `configured`, or one for each core where that is 0.
#[must_use]
pub fn count(configured: usize) -> usize {
    if configured > 0 { configured } else { thread::available_parallelism().map_or(1, std::num::NonZero::get) }
}

/// Starts `count` threads; thread `i` drives the future `make(i)`, which need not be [`Send`], to its end.
///
/// # Errors
/// A thread or a runtime could not be made.
pub fn spawn<F, Fut>(name: &'static str, count: usize, make: F) -> io::Result<Workers>
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<()>> + 'static,
{
    let make = Arc::new(make);
    let beats = (0..count).map(|_| Beat::default()).collect::<Vec<_>>();
    let threads = (0..count)
        .map(|index| {
            let (make, beat) = (Arc::clone(&make), beats[index].clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                let local = tokio::task::LocalSet::new();
                runtime.block_on(local.run_until(async {
                    tokio::select! {
                        ended = make(index) => ended,
                        never = beat.run() => match never {},
                    }
                }))
            })
        })
        .collect::<io::Result<_>>()?;
    Ok(Workers { threads, beats })
}

impl Workers {
    /// What each counts while it turns.
    #[must_use]
    pub fn beats(&self) -> Vec<Beat> {
        self.beats.clone()
    }

    /// Waits until every worker has ended.
    ///
    /// # Errors
    /// The first worker's error, or that it panicked.
    pub fn join(self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or("worker").to_owned();
            let ended = thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("thread panicked"))).context(name);
            result = result.and(ended);
        }
        result
    }
}
