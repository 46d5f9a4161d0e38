//! The broker as others see it while it runs: its state on the control socket, `$SYS` topics, and Prometheus.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::health::Health;
use evermq_daemon::metrics::{self, Text};
use evermq_quorum::StateWatch;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::clock;
use crate::drain;
use crate::mailbox::Wakes;
use crate::metrics::{Desk, text};
use crate::sys::{Sys, message};
use crate::trouble;

/// Shows them; the tasks end with the set, or with `shutdown`.
pub(super) fn show(
    desk: &Arc<Desk>,
    metrics: Option<TcpListener>,
    sys_interval: watch::Receiver<Option<Duration>>,
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
    tasks.spawn(publish_sys(Arc::clone(desk), sys_interval, shutdown.clone()));
    tasks
}

/// What the control socket answers to `state`.
pub(super) fn state(
    desk: &Arc<Desk>,
    quorum: Option<StateWatch>,
    health: watch::Receiver<Health>,
) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let desk = Arc::clone(desk);
    Arc::new(move || {
        let Desk { broker, host, started, bridges, .. } = &*desk;
        let (sessions, queued) = broker.sessions();
        json!({
            "program": "evermq-broker",
            "version": evermq_daemon::command::VERSION,
            "host": host,
            "health": *health.borrow(),
            "trouble": trouble::of(broker),
            "store": trouble::store(broker),
            "uptime_seconds": clock().saturating_duration_since(*started).as_secs(),
            "readiness": broker.cluster.readiness().word(),
            "drain": drain::state(broker),
            "connections": broker.connections(),
            "lbs": broker.cluster.lbs(),
            "sessions": sessions,
            "queued": queued,
            "subscriptions": broker.router.subscriptions(),
            "retained": broker.router.retained(),
            "messages": broker.counters.to_json(),
            "bridge": broker.backbone.state(),
            "bridges": bridges.show(broker, clock()),
            "quorum": quorum.as_ref().map(StateWatch::get),
        })
    })
}

/// Every wait here can be dropped at any time.
async fn publish_sys(desk: Arc<Desk>, mut interval: watch::Receiver<Option<Duration>>, shutdown: CancellationToken) {
    let mut sys = Sys::default();
    let mut next = None;
    loop {
        let period = *interval.borrow_and_update();
        let due = async {
            match (period, next) {
                (Some(_), Some(at)) => tokio::time::sleep_until(at).await,
                // The first ones at once.
                (Some(_), None) => {}
                (None, _) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = interval.changed() => match changed {
                Ok(()) => {
                    next = None;
                    continue;
                }
                // Nobody is left who could change it: the broker stops.
                Err(_) => return,
            },
            () = due => {}
        }
        next = period.map(|period| tokio::time::Instant::now() + period);
        let now = clock();
        let mut wakes = Wakes::default();
        for (topic, value) in sys.handle_figures(desk.figures(now), now) {
            desk.broker.router.route_sys(message(&topic, value, now), &mut wakes);
        }
    }
}
