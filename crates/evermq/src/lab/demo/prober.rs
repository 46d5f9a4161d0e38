//! The prober: a new connection at every interval, whether earlier ones are through or not. Their CONNACKs show for how long
//! nobody can connect.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::clients::emit;
use super::events::What;
use super::session::Identity;

/// An attempt that takes longer than this is given up.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Attempts at once: an outage of several seconds must not eat the machine.
const MAX_ATTEMPTS: usize = 128;

/// Probes until the task is dropped.
pub(super) async fn run(identity: Identity, every: Duration) -> io::Result<Infallible> {
    let mut attempts = JoinSet::new();
    let mut tick = interval(every);
    // A late one is not made up for by several at once.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0_u64;
    loop {
        tokio::select! {
            _ = tick.tick(), if attempts.len() < MAX_ATTEMPTS => {
                number += 1;
                attempts.spawn_local(attempt(identity.clone(), format!("demo-probe-{number}")));
            }
            Some(attempt) = attempts.join_next() => attempt.map_err(io::Error::other)??,
        }
    }
}

async fn attempt(identity: Identity, client_id: String) -> io::Result<()> {
    // A failed attempt shows as a gap.
    if let Ok(connection) = identity.connect(&client_id, TIMEOUT).await {
        emit(What::Probe)?;
        // Closing must not take longer than an attempt either.
        let _ = tokio::time::timeout(TIMEOUT, connection.close()).await;
    }
    Ok(())
}
