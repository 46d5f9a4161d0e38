//! This process as the one that an upgrade succeeds: what it has, how it lets go of it, and its time after that.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::control::{self, Lender};
use evermq_daemon::notify;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Stage;
use crate::desk::Desk;
use crate::engine::inbox::Order;
use crate::engine::moving::{Exported, Import};
use crate::upgrade::giver::{Giver, Holdings, Summary};
use crate::upgrade::handover::Outcome;
use crate::upgrade::leaving;
use crate::upgrade::message::{Offer, Socket, VERSION, Word};
use crate::upgrade::parcel::Carried;
use crate::upgrade::program::Program;

/// A worker that does not answer for this long has nothing to give.
const PATIENCE: Duration = Duration::from_secs(1);
/// For the program to be checked where systemd restarts it. Nothing is heard of this process meanwhile, and its watchdog waits for 10 s.
const LAST_CHECK: Duration = Duration::from_secs(5);
/// Upgrades that were asked for and not looked at: only one goes on at a time.
pub(super) const REQUESTS: usize = 4;

/// Who asked, and waits for what came of it.
pub(crate) type Reply = oneshot::Sender<Result<Summary, String>>;

/// What this process is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    /// To start a new process and hand over to it.
    Upgrade(Reply),
    /// To leave everything to the process that systemd starts next.
    Bequeath(Reply),
}

/// What this process has.
#[derive(Debug, Clone)]
pub(super) struct Belongings {
    pub(super) desk: Arc<Desk>,
    pub(super) lender: Lender,
    pub(super) control_path: PathBuf,
    /// Where the other lbs connect.
    pub(super) peers: Option<(SocketAddr, Arc<std::net::TcpListener>)>,
    /// Ends what only one process can do: the exchange with the other lbs, and to show figures.
    pub(super) singular: CancellationToken,
    /// The new process is on its own.
    pub(super) settled: CancellationToken,
}

/// Upgrades, one at a time.
pub(super) struct Upgrades {
    pub(super) program: Option<Program>,
    pub(super) belongings: Belongings,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) running: Option<JoinHandle<Outcome>>,
}

impl Upgrades {
    /// Begins one, if it can be.
    pub(super) fn begin(&mut self, reply: Reply, stage: Stage, stop: CancellationToken) {
        match self.ready(stage) {
            Ok(program) => {
                let (program, belongings) = (program.clone(), self.belongings.clone());
                self.running = Some(tokio::spawn(give(program, belongings, reply, stop)));
            }
            // Whoever asked has gone: SIGUSR2 has nobody to tell.
            Err(refusal) => {
                if reply.send(Err(refusal.to_owned())).is_err() {
                    tracing::warn!(reason = refusal, "no upgrade");
                }
            }
        }
    }

    /// Leaves all that can be handed over to the process that systemd starts next. Where it gives an error, this one goes on.
    pub(super) async fn bequeath(&self, stage: Stage) -> Result<Summary, String> {
        let program = self.ready(stage)?;
        // What is left to a program that does not start is lost.
        program.check(LAST_CHECK).await.map_err(|error| error.to_string())?;
        let mut holdings = Own { belongings: self.belongings.clone(), taken: None };
        let directory = self.belongings.control_path.parent().unwrap_or(Path::new("/run"));
        leaving::leave(&mut holdings, directory).await.map_err(|error| error.to_string())
    }

    /// The program, if this process is the only one and knows it.
    fn ready(&self, stage: Stage) -> Result<&Program, &'static str> {
        match (&self.program, stage) {
            (None, _) => Err("this process does not know how it was started"),
            _ if self.running.as_ref().is_some_and(|running| !running.is_finished()) => Err("an upgrade is under way"),
            (Some(_), Stage::Preparing | Stage::InCharge) => Err("this process has not taken over yet"),
            (Some(_), Stage::Settled) => {
                Err("the process before this one still has connections; it ends within lb.drain_timeout")
            }
            (Some(program), Stage::Alone) => Ok(program),
        }
    }
}

async fn give(program: Program, belongings: Belongings, reply: Reply, stop: CancellationToken) -> Outcome {
    let holdings = Own { belongings, taken: None };
    match Giver::start(&program, holdings, reply).await {
        Ok(giver) => giver.run(stop).await,
        Err((error, reply)) => {
            let reason = error.to_string();
            tracing::warn!(%reason, "no upgrade: this process goes on");
            let _ = reply.send(Err(reason.clone()));
            Outcome::Failed(reason)
        }
    }
}

/// What this process has, while it is handed over.
struct Own {
    belongings: Belongings,
    /// The control socket, while nobody serves it here.
    taken: Option<control::Estate>,
}

impl Own {
    /// Asks every worker; those that do not answer are left out.
    async fn ask<T>(&self, order: impl Fn(oneshot::Sender<T>) -> Order) -> Vec<T> {
        let asked = self.belongings.desk.workers.iter().map(|worker| {
            let (reply, answer) = oneshot::channel();
            worker.inbox.post(order(reply));
            answer
        });
        // All are asked before the first is waited for.
        let asked: Vec<_> = asked.collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            match tokio::time::timeout(PATIENCE, answer).await {
                Ok(Ok(answer)) => answers.push(answer),
                Ok(Err(_)) | Err(_) => tracing::warn!("a worker does not answer"),
            }
        }
        answers
    }
}

impl Holdings for Own {
    async fn offer(&mut self) -> io::Result<(Offer, Vec<OwnedFd>)> {
        let (mut sockets, mut descriptors) = (Vec::new(), Vec::new());
        let fronts = self.belongings.desk.in_force().fronts;
        for (front, listener) in self.ask(Order::Copies).await.into_iter().flatten() {
            let front = &fronts[usize::from(front)];
            sockets.push(Socket::Clients { name: front.name.to_string(), address: front.address });
            descriptors.push(listener);
        }
        if let Some(control) = self.belongings.lender.copy().await {
            sockets.push(Socket::Control { path: self.belongings.control_path.to_string_lossy().into_owned() });
            descriptors.push(control.into());
        }
        if let Some((address, listener)) = &self.belongings.peers {
            sockets.push(Socket::Peers { address: *address });
            descriptors.push(listener.as_fd().try_clone_to_owned()?);
        }
        let pool = self.belongings.desk.pool();
        let up = pool
            .members()
            .iter()
            .filter(|member| member.standing().has_session())
            .map(|member| member.name().to_owned());
        Ok((Offer { version: VERSION, sockets, up: up.collect() }, descriptors))
    }

    async fn suspend(&mut self) {
        self.ask(Order::Hold).await;
        self.taken = self.belongings.lender.take().await;
    }

    fn control_clients(&self) -> &[control::Client] {
        self.taken.as_ref().map_or(&[], |taken| &taken.clients)
    }

    fn words(&self) -> Vec<Word> {
        let words = self.belongings.desk.board.words();
        let word = |(backend, word): (&str, &crate::admin::Word)| Word {
            backend: backend.to_owned(),
            state: word.admin.name().to_owned(),
            rate: word.rate,
            weight: word.weight,
            time: word.stamp.time,
            host: word.stamp.host.clone(),
        };
        words.iter().map(word).collect()
    }

    async fn resume(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.belongings.lender.give_back(taken).await;
        }
        self.belongings.desk.order(|| Order::Unhold);
    }

    async fn export(&mut self, most: usize) -> Exported {
        let each = most.div_ceil(self.belongings.desk.workers.len().max(1));
        let mut all = Exported::default();
        for Exported { connections, left } in self.ask(|reply| Order::Export(each, reply)).await {
            all.connections.extend(connections);
            all.left += left;
        }
        all
    }

    async fn take_back(&mut self, connections: Vec<Carried>, stay: bool) {
        import(&self.belongings.desk, connections, stay);
    }

    async fn settle(&mut self, successor: u32) {
        self.belongings.desk.order(|| Order::Release);
        self.taken = None;
        self.belongings.singular.cancel();
        notify::main_process(successor);
        self.belongings.settled.cancel();
    }
}

/// Spreads connections over the workers.
pub(super) fn import(desk: &Desk, connections: Vec<Carried>, stays: bool) {
    let (workers, in_force) = (&desk.workers, desk.in_force());
    let mut imports: Vec<_> = workers.iter().map(|_| Vec::new()).collect();
    let count = imports.len().max(1);
    for (index, carried) in connections.into_iter().enumerate() {
        let listener = in_force.fronts.iter().position(|front| *front.name == *carried.record.listener);
        let listener = listener.and_then(|listener| u16::try_from(listener).ok());
        let lease = in_force.pool.adopt(&carried.record.backend);
        let (Some(listener), Some(lease), Some(imports)) = (listener, lease, imports.get_mut(index % count)) else {
            tracing::error!(client = %carried.record.client, "a connection is lost: its listener or backend is not known");
            continue;
        };
        imports.push(Import { carried, lease, listener, stays });
    }
    for (worker, imports) in workers.iter().zip(imports) {
        if !imports.is_empty() {
            worker.inbox.post(Order::Import(imports));
        }
    }
}

/// How many of those that are left are closed at a time, so that none are left at a deadline and they come back evenly.
///
/// Pure.
#[derive(Debug)]
pub(super) struct Spread {
    left: Duration,
    owed: f64,
}

impl Spread {
    /// To close everybody within that time.
    pub(super) const fn new(within: Duration) -> Self {
        Self { left: within, owed: 0.0 }
    }

    /// How many of `connections` are to be closed for the time that has `passed` since the last call.
    pub(super) fn handle_passed(&mut self, passed: Duration, connections: usize) -> usize {
        let share = passed.as_secs_f64() / self.left.as_secs_f64().max(passed.as_secs_f64()).max(f64::MIN_POSITIVE);
        self.left = self.left.saturating_sub(passed);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 connections")]
        let due = self.owed + connections as f64 * share;
        self.owed = due.fract();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most the number of connections"
        )]
        let whole = due.trunc() as usize;
        whole.min(connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_closed_evenly_and_none_is_left_at_the_end() {
        for (connections, seconds) in [(1000_usize, 10_u32), (3, 10), (50_000, 30), (0, 1)] {
            let tick = Duration::from_millis(10);
            let mut spread = Spread::new(Duration::from_secs(seconds.into()));
            let mut left = connections;
            let ticks = seconds * 100;
            let mut most = 0;
            for n in 0..ticks {
                let closed = spread.handle_passed(tick, left);
                most = most.max(closed);
                left -= closed;
                let even = connections - connections * (n as usize + 1) / ticks as usize;
                assert!(left.abs_diff(even) <= 2, "{left} left of {connections} at tick {n}, not {even}");
            }
            assert_eq!(left, 0);
            assert!(most <= connections.div_ceil(ticks as usize) + 1, "{most} at a time");
        }
        assert_eq!(Spread::new(Duration::ZERO).handle_passed(Duration::ZERO, 7), 0);
        assert_eq!(Spread::new(Duration::ZERO).handle_passed(Duration::from_millis(1), 7), 7);
    }
}
