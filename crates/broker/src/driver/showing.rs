//! Figures as others see them while the broker runs: `$SYS` topics, and Prometheus.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::metrics::{self, Text};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::clock;
use crate::mailbox::Wakes;
use crate::metrics::{Desk, text};
use crate::sys::{Sys, message};

/// Shows them; the tasks end with the set, or with `shutdown`.
pub(super) fn show(
    desk: &Arc<Desk>,
    metrics: Option<TcpListener>,
    sys_interval: Option<Duration>,
    shutdown: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(listener) = metrics {
        let (desk, shutdown) = (Arc::clone(desk), shutdown.clone());
        let shown: Text = Arc::new(move || text(&desk, clock()));
        tasks.spawn(async move {
            if let Err(error) = metrics::serve(listener, shown, shutdown).await {
                tracing::error!(%error, "the figures are not shown any more");
            }
        });
    }
    if let Some(interval) = sys_interval {
        tasks.spawn(publish_sys(Arc::clone(desk), interval, shutdown.clone()));
    }
    tasks
}

/// Every wait here can be dropped at any time.
async fn publish_sys(desk: Arc<Desk>, interval: Duration, shutdown: CancellationToken) {
    let mut sys = Sys::default();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = clock();
        let mut wakes = Wakes::default();
        for (topic, value) in sys.handle_figures(desk.figures(now), now) {
            desk.broker.router.route_sys(message(&topic, value, now), &mut wakes);
        }
    }
}
