//! What the control thread does while the lb serves: watches the workers, says how the lb is, begins upgrades, drains.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::health::Health;
use evermq_daemon::notify::{self, Watchdog};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::giving::{Reply, Request, Spread, Upgrades};
use super::taking::Successor;
use super::{Drained, Stage};
use crate::desk::Desk;
use crate::engine::inbox::Order;
use crate::pulse::{BEAT, Condition, Pulse};
use crate::upgrade::handover::Outcome;
use crate::upgrade::taker::Predecessor;

/// Clients are still accepted for this long after evermq-vip was told to hand the VIP over: it knows at once, and the other
/// host has the VIP some milliseconds later.
const HANDOVER: Duration = Duration::from_millis(100);
/// For systemd to end this process once it has left everything; otherwise it ends by itself.
const LAST: Duration = Duration::from_millis(300);

/// Watches the workers, tells evermq-vip, and drains at the end.
pub(super) struct Overseer {
    pub(super) desk: Arc<Desk>,
    pub(super) pulse: Pulse,
    pub(super) condition: Condition,
    pub(super) health: watch::Sender<Health>,
    /// A worker does not accept any more, without having been told.
    pub(super) lost: CancellationToken,
    pub(super) upgrades: Upgrades,
    pub(super) stages: watch::Receiver<Stage>,
}

impl Overseer {
    /// Takes over from another process, and goes on as [`Overseer::run`] says. Gives an error where that one goes on instead.
    pub(super) async fn succeed(
        self,
        mut successor: Successor,
        predecessor: Predecessor,
        shutdown: &CancellationToken,
        drain_timeout: Duration,
    ) -> anyhow::Result<Drained> {
        let desk = Arc::clone(&self.desk);
        // Connections that were left to this process are nobody else's: it has them before it hears of its own end.
        let stop = if predecessor.is_gone() { CancellationToken::new() } else { shutdown.clone() };
        let succeed = predecessor.succeed(&mut successor);
        let run = self.run(&stop, drain_timeout);
        tokio::pin!(succeed, run);
        tokio::select! {
            succeeded = &mut succeed => match succeeded {
                Ok(()) => Ok(tokio::select! {
                    drained = &mut run => drained,
                    never = pass_on(shutdown, &stop) => match never {},
                }),
                Err(error) => {
                    leave(&desk);
                    Err(error.into())
                }
            },
            drained = &mut run => Ok(drained),
        }
    }

    /// Until it is time to end.
    pub(super) async fn run(mut self, shutdown: &CancellationToken, drain_timeout: Duration) -> Drained {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut signals = upgrade_signals();
        let mut watchdog = Watchdog::from_environment();
        while !self.condition.draining {
            let (pool, lost) = (self.desk.pool(), self.lost.clone());
            let settled = self.upgrades.belongings.settled.clone();
            tokio::select! {
                now = ticks.tick() => {
                    self.pulse.handle_sample(self.desk.workers.iter().map(|worker| worker.beat()));
                    if self.pulse.stalled().is_none() && watchdog.handle_turn(now.into_std()) {
                        notify::alive();
                    }
                }
                () = pool.changed() => {}
                () = lost.cancelled(), if !self.condition.worker_lost => {
                    self.condition.worker_lost = true;
                    self.condition.draining = true;
                }
                () = shutdown.cancelled() => self.condition.draining = true,
                Some(request) = self.upgrades.requests.recv() => match request {
                    Request::Upgrade(reply) => self.begin_upgrade(reply, shutdown),
                    Request::Bequeath(reply) => if self.bequeath(reply, shutdown).await {
                        return Drained::Succeeded;
                    },
                },
                () = signalled(&mut signals) => self.begin_upgrade(oneshot::channel().0, shutdown),
                () = settled.cancelled() => return self.outlive(shutdown, drain_timeout).await,
            }
            self.judge();
        }
        if self.upgrades.belongings.settled.is_cancelled() {
            return self.outlive(shutdown, drain_timeout).await;
        }
        self.drain(drain_timeout).await
    }

    fn begin_upgrade(&mut self, reply: Reply, shutdown: &CancellationToken) {
        let stage = *self.stages.borrow();
        self.upgrades.begin(reply, stage, shutdown.clone());
    }

    /// Whether everything was left to the next process: then this one ends.
    async fn bequeath(&self, reply: Reply, shutdown: &CancellationToken) -> bool {
        let stage = *self.stages.borrow();
        let left = self.upgrades.bequeath(stage).await;
        match &left {
            Ok(summary) => tracing::info!(
                moved = summary.moved,
                end = summary.left,
                took = ?summary.took,
                "all is left to the next process"
            ),
            Err(reason) => tracing::warn!(%reason, "nothing is left to the next process"),
        }
        let done = left.is_ok();
        // Whoever asked has gone.
        let _ = reply.send(left);
        if done {
            let _ = tokio::time::timeout(LAST, shutdown.cancelled()).await;
            leave(&self.desk);
        }
        done
    }

    /// Says how the lb is, if that has changed.
    fn judge(&mut self) {
        let stalled = self.pulse.stalled();
        self.condition.worker_stalled = stalled.is_some();
        self.condition.any_backend = self.desk.pool().any_up();
        let (to, reason) = self.condition.health();
        let from = self.health.send_replace(to);
        if from != to {
            tracing::info!(?from, ?to, reason, stalled_worker = stalled, "health changed");
            // Before that systemd listens to another process.
            if matches!(*self.stages.borrow(), Stage::Settled | Stage::Alone) {
                notify::status(reason);
            }
        }
    }

    /// Another process serves on: closes what this one still has, evenly over `drain_timeout`, and ends with the last, or
    /// with that process.
    async fn outlive(&mut self, shutdown: &CancellationToken, drain_timeout: Duration) -> Drained {
        let Some(mut running) = self.upgrades.running.take() else { return Drained::Succeeded };
        let start = tokio::time::Instant::now();
        let deadline = start + drain_timeout;
        let (mut spread, mut last) = (Spread::new(drain_timeout), start);
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                outcome = &mut running => {
                    if !matches!(outcome, Ok(Outcome::Done)) {
                        tracing::error!(?outcome, connections = self.connections(), "the new process has ended: so does this one");
                    }
                    break;
                }
                now = ticks.tick() => {
                    let count = spread.handle_passed(now.saturating_duration_since(last), self.connections());
                    last = last.max(now);
                    self.shed(count);
                }
                () = tokio::time::sleep_until(deadline) => break,
                () = shutdown.cancelled() => break,
            }
        }
        tracing::info!(connections = self.connections(), "this process ends: another one serves on");
        self.desk.order(|| Order::Close);
        Drained::Succeeded
    }

    fn connections(&self) -> usize {
        self.desk.workers.first().map_or(0, |worker| worker.gate.admission.current())
    }

    /// Has the workers close so many.
    fn shed(&self, count: usize) {
        let workers = self.desk.workers.len().max(1);
        for (index, worker) in self.desk.workers.iter().enumerate() {
            let share = count / workers + usize::from(index < count % workers);
            if share > 0 {
                worker.inbox.post(Order::Shed(share));
            }
        }
    }

    async fn drain(self, drain_timeout: Duration) -> Drained {
        if *self.stages.borrow() == Stage::Preparing {
            leave(&self.desk);
            return Drained::Finished;
        }
        notify::stopping();
        let deadline = tokio::time::Instant::now() + drain_timeout;
        tokio::time::sleep(HANDOVER.min(drain_timeout)).await;
        self.desk.order(|| Order::Stop);
        let Some(admission) = self.desk.workers.first().map(|worker| &worker.gate.admission) else {
            return Drained::Finished;
        };
        tracing::info!(connections = admission.current(), timeout = ?drain_timeout, "draining");
        let mut ticks = tokio::time::interval(BEAT);
        while admission.current() > 0 && tokio::time::Instant::now() < deadline {
            tokio::select! {
                _ = ticks.tick() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        let left = admission.current();
        self.desk.order(|| Order::Close);
        if left == 0 {
            tracing::info!("drained: every client has left");
            Drained::Finished
        } else {
            tracing::warn!(connections = left, "drain_timeout is over: closing the connections that are left");
            Drained::Closed(left)
        }
    }
}

async fn pass_on(from: &CancellationToken, to: &CancellationToken) -> Infallible {
    from.cancelled().await;
    to.cancel();
    std::future::pending().await
}

/// Ends the workers of a process that is not in charge: the listeners' queues are another one's.
fn leave(desk: &Desk) {
    desk.order(|| Order::Release);
    desk.order(|| Order::Close);
}

/// SIGUSR2 asks for an upgrade.
fn upgrade_signals() -> Option<Signal> {
    let signals = signal(SignalKind::user_defined2());
    signals.inspect_err(|error| tracing::warn!(%error, "SIGUSR2 does nothing: only `evermq upgrade lb` does")).ok()
}

async fn signalled(signals: &mut Option<Signal>) {
    let received = match signals {
        Some(signals) => signals.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}
