//! What ends a command from outside: a signal, or the time given with `-W`.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::failure::Failure;

/// Waits for the first of SIGINT, SIGTERM and the deadline.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    timeout: Option<(Duration, Instant)>,
}

/// Why to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Signal,
    Timeout(Duration),
}

impl Stop {
    pub(super) fn new(timeout: Option<Duration>) -> Result<Self, Failure> {
        let listen = |kind| -> io::Result<Signal> { signal(kind) };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt()).map_err(Failure::Runtime)?,
            terminate: listen(SignalKind::terminate()).map_err(Failure::Runtime)?,
            timeout: timeout.map(|timeout| (timeout, Instant::now() + timeout)),
        })
    }

    /// Cancel-safe.
    pub(super) async fn wait(&mut self) -> Cause {
        let timeout = self.timeout;
        let deadline = async {
            match timeout {
                Some((timeout, deadline)) => {
                    tokio::time::sleep_until(deadline).await;
                    timeout
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Cause::Signal,
            _ = self.terminate.recv() => Cause::Signal,
            timeout = deadline => Cause::Timeout(timeout),
        }
    }
}
