//! Runs the tasks of one bridge and ends them in the right order.
//!
//! Tasks: one [`Dialer`] for each peer, from when it becomes one until it is none any more, one that looks after the log once a second, and [`listener::serve`] with a task for each incoming connection. All are owned here
//! and end when `run` does. On shutdown the dialers go first, under their own deadline: what this broker's clients published
//! reaches the peers, which may be stopping as well and doing the same. Then the incoming links end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::listener;
use crate::mesh::{Mesh, now};
use crate::peer::Dialer;

/// How often the log is looked after.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// Serves all links until `shutdown` and the end of what is on its way.
///
/// # Errors
/// A task has panicked.
pub(crate) async fn run(
    mesh: Arc<Mesh>,
    listener: TcpListener,
    identity: Arc<Identity>,
    shutdown: CancellationToken,
) -> Result<(), JoinError> {
    let mut dialers = JoinSet::new();
    let tidier = tokio::spawn(tidy(Arc::clone(&mesh)));
    let _tidier = AbortOnDrop(tidier);
    let (log, dialing) = (Arc::clone(&mesh), Arc::clone(&identity));
    let stop_listening = CancellationToken::new();
    let mut incoming = JoinSet::new();
    incoming.spawn(listener::serve(mesh, listener, identity, stop_listening.clone()));
    let dialers_done = async {
        // Those that have left come to an end by themselves; of one that comes back the reader is another one.
        let mut dialed = BTreeSet::new();
        loop {
            for slot in &log.roster().slots {
                if dialed.insert(slot.reader) {
                    let dialer = Dialer::new(Arc::clone(&log), Arc::clone(slot), Arc::clone(&dialing));
                    dialers.spawn(dialer.run(shutdown.clone()));
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = log.roster_changed.notified() => {}
                Some(ended) = dialers.join_next() => ended?,
            }
        }
        while dialers.join_next().await.transpose()?.is_some() {}
        Ok(())
    };
    tokio::select! {
        done = dialers_done => done?,
        Some(ended) = incoming.join_next() => return ended?,
    }
    log.spool.close();
    stop_listening.cancel();
    incoming.join_next().await.unwrap_or(Ok(Ok(())))?
}

/// Drops what is too old for the log, and writes down how far the peers are.
async fn tidy(mesh: Arc<Mesh>) {
    let mut ticks = tokio::time::interval(TIDY_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        mesh.spool.tidy(now());
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
