//! Drives [`crate::rebalance`]: looks at the backends, and closes connections where it says so.
//!
//! An EverMQ broker is asked to send its clients away by itself (DISCONNECT with reason 0x9C, "use another server"), so that
//! they know that they need not wait; connections to others, and of clients that have not gone after [`GRACE`], are closed
//! here. Of a backend's connections those go first that have been idle for longest.
//!
//! One task, owned by the control thread's set; it ends with its token.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evermq_config::lb::Balance;
use evermq_daemon::control::Reply;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Words};
use crate::backend::Standing;
use crate::desk::{Desk, clock};
use crate::engine::ended::Why;
use crate::engine::steering::Target;
use crate::pool::Pool;
use crate::probe::Probes;
use crate::rebalance::{Action, Cause, DRAIN_RATE, Rebalance, Role, Seat, Settings};
use crate::view::cheapest_first;

/// Between two looks at the backends.
const LOOK: Duration = Duration::from_millis(250);
/// For a client that was sent away by its broker.
const GRACE: Duration = Duration::from_secs(2);
/// A list of candidates is good for so long: after that others may be idle for longer.
const STALE: Duration = Duration::from_secs(5);

/// An operator wants clients evened out, at a rate if one was said; what comes of it.
pub(crate) type Wish = (Option<u32>, Reply);
/// Wishes that wait: more ask for nothing else.
pub(crate) const WISHES: usize = 4;

/// The mover.
pub(crate) struct Mover {
    desk: Arc<Desk>,
    probes: Arc<Mutex<Probes>>,
    machine: Rebalance,
    candidates: HashMap<u64, Candidates>,
    leaving: Vec<Leaving>,
    groups: Vec<String>,
}

/// Connections of one backend, those first that are closed first.
struct Candidates {
    rows: VecDeque<(Target, Option<std::net::SocketAddr>)>,
    made: Instant,
}

/// A client that was sent away.
struct Leaving {
    target: Target,
    backend: u64,
    until: Instant,
}

impl Mover {
    pub(crate) fn new(desk: Arc<Desk>, probes: Arc<Mutex<Probes>>) -> Self {
        let machine = Rebalance::new(settings(&desk.in_force().config.lb));
        Self { desk, probes, machine, candidates: HashMap::new(), leaving: Vec::new(), groups: Vec::new() }
    }

    /// Until `end`.
    pub(crate) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>, end: CancellationToken) {
        let mut words = self.desk.board.changes();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.machine.poll_timeout();
            tokio::select! {
                () = end.cancelled() => return,
                _ = looks.tick() => self.look().await,
                // Said here or by another lb.
                Ok(()) = words.changed() => {
                    self.desk.apply_words();
                    self.look().await;
                }
                Some((rate, reply)) = wishes.recv() => {
                    self.look().await;
                    // Whoever asked may have left.
                    let _ = reply.send(self.even_out(rate));
                }
                () = until(due) => self.machine.handle_timeout(clock()),
            }
            self.act().await;
        }
    }

    fn even_out(&mut self, rate: Option<u32>) -> Result<Value, String> {
        let now = self.desk.in_force();
        if !moves(now.config.lb.balance) {
            return Err("with lb.balance = \"source_ip\" or \"client_id\" clients belong where they are".to_owned());
        }
        let rate = rate.or(now.config.lb.rebalance.rate).unwrap_or(DRAIN_RATE);
        let excesses = self.machine.handle_request(rate, clock());
        let group = |(group, excess): &(usize, usize)| json!({ "name": self.groups.get(*group), "moves": excess });
        let groups: Vec<Value> = excesses.iter().map(group).collect();
        Ok(json!({ "host": now.config.host.as_str(), "rate": rate, "groups": groups }))
    }

    async fn look(&mut self) {
        self.follow_up().await;
        let now = self.desk.in_force();
        let words = self.desk.board.words();
        self.machine.handle_settings(settings(&now.config.lb));
        let leaving = &self.leaving;
        let gone = |backend: u64| leaving.iter().filter(|leaving| leaving.backend == backend).count();
        let rate = now.config.lb.rebalance.rate.unwrap_or(DRAIN_RATE);
        let seats = seats(&now.pool, &words, rate, &mut self.groups, gone);
        self.candidates.retain(|key, _| seats.iter().any(|seat| seat.key == *key));
        self.machine.handle_backends(&seats, clock());
    }

    /// Looks who has not gone, and closes them when their time is over.
    async fn follow_up(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let now = clock();
        let (late, waiting): (Vec<_>, Vec<_>) = self.leaving.drain(..).partition(|leaving| leaving.until <= now);
        let targets = |leaving: &[Leaving]| leaving.iter().map(|leaving| leaving.target).collect::<Vec<_>>();
        if let Err(error) = self.desk.steer(&targets(&late), true).await {
            tracing::debug!(%error, "connections that are to move stay for now");
        }
        // Of a worker that hangs nothing is known: they count as there.
        let there = self.desk.steer(&targets(&waiting), false).await.ok();
        let stays =
            |leaving: &Leaving| there.as_ref().is_none_or(|there| there.binary_search(&leaving.target.id).is_ok());
        self.leaving = waiting.into_iter().filter(stays).collect();
    }

    async fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Close { key, count, cause } => self.close(key, count, cause).await,
                Action::Moving { group, excess } => {
                    let name = self.groups.get(group).map_or("", String::as_str);
                    let [from, to] = if excess > 0 { ["resting", "moving"] } else { ["moving", "resting"] };
                    let reason =
                        if excess > 0 { "a broker has too many connections" } else { "even, given up, or changed" };
                    tracing::info!(group = name, from, to, reason, excess, "rebalancing");
                }
            }
        }
    }

    async fn close(&mut self, backend: u64, count: usize, cause: Cause) {
        let why = match cause {
            Cause::Drain => Why::Drain,
            Cause::Rebalance => Why::Rebalance,
        };
        let chosen = match self.choose(backend, count, why).await {
            Ok(chosen) => chosen,
            Err(error) => return tracing::debug!(%error, "connections that are to move stay for now"),
        };
        let targets: Vec<Target> = chosen.iter().map(|(target, _)| *target).collect();
        let asked = self.ask_broker(backend, &chosen);
        if let Err(error) = self.desk.steer(&targets, !asked).await {
            tracing::debug!(%error, "connections that are to move stay for now");
        }
        if asked {
            let until = clock() + GRACE;
            self.leaving.extend(targets.into_iter().map(|target| Leaving { target, backend, until }));
        }
    }

    /// Has the broker send them away, if it is one that does; all of them or none.
    fn ask_broker(&self, backend: u64, chosen: &[(Target, Option<std::net::SocketAddr>)]) -> bool {
        let Some(addresses) = chosen.iter().map(|(_, local)| *local).collect::<Option<Vec<_>>>() else { return false };
        if addresses.is_empty() {
            return false;
        }
        let pool = self.desk.pool();
        let Some(member) = pool.members().iter().find(|member| u64::from(member.id()) == backend) else { return false };
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.handle(member).is_some_and(|probe| probe.disconnect(addresses))
    }

    async fn choose(
        &mut self,
        backend: u64,
        count: usize,
        why: Why,
    ) -> Result<Vec<(Target, Option<std::net::SocketAddr>)>, crate::desk::Hangs> {
        let now = clock();
        let fresh =
            self.candidates.get(&backend).is_some_and(|known| known.rows.len() >= count && now < known.made + STALE);
        if !fresh {
            let pool = self.desk.pool();
            let name =
                pool.members().iter().find(|member| u64::from(member.id()) == backend).map(|member| member.name());
            let mut rows = self.desk.rows(|_| true).await?;
            cheapest_first(&mut rows, name.unwrap_or_default());
            let leaves = |id: u64| self.leaving.iter().any(|leaving| leaving.target.id == id);
            let rows = rows
                .iter()
                .filter(|row| !leaves(row.id))
                .map(|row| (Target { key: row.key, id: row.id, why }, row.backend_local))
                .collect();
            self.candidates.insert(backend, Candidates { rows, made: now });
        }
        let Some(known) = self.candidates.get_mut(&backend) else { return Ok(Vec::new()) };
        let count = count.min(known.rows.len());
        Ok(known.rows.drain(..count).map(|(target, local)| (Target { why, ..target }, local)).collect())
    }
}

/// Where clients come back to the same backend by their address or identifier, closing them moves nobody.
fn settings(lb: &evermq_config::lb::Lb) -> Settings {
    let evermq_config::lb::Rebalance { rate, threshold, delay } = lb.rebalance;
    Settings { rate: rate.filter(|_| moves(lb.balance)), threshold, delay }
}

const fn moves(balance: Balance) -> bool {
    match balance {
        Balance::LeastConn | Balance::RoundRobin | Balance::RandomTwo => true,
        Balance::SourceIp | Balance::ClientId => false,
    }
}

fn seats(pool: &Pool, words: &Words, rate: u32, groups: &mut Vec<String>, leaving: impl Fn(u64) -> usize) -> Vec<Seat> {
    let seat = |(index, member): (usize, &Arc<crate::pool::Member>)| {
        let config = pool.config(index);
        let group = groups.iter().position(|name| *name == config.group).unwrap_or_else(|| {
            groups.push(config.group.clone());
            groups.len() - 1
        });
        let key = u64::from(member.id());
        let role = match (words.of(member.name()), member.standing(), config.backup) {
            (word, ..) if word.admin == Admin::Drain => Role::Drains(word.rate.unwrap_or(rate)),
            (word, ..) if word.admin == Admin::Maint => Role::Away,
            (_, Standing::Up, false) => Role::Takes,
            (_, Standing::Up, true) => Role::Backup,
            _ => Role::Away,
        };
        let connections = member.connections().saturating_sub(leaving(key));
        Seat { key, group, weight: member.weight(), role, connections }
    };
    pool.members().iter().enumerate().map(seat).collect()
}

/// Whether the clients of that backend would find another one.
pub(crate) fn has_refuge(pool: &Pool, index: usize) -> bool {
    let group = &pool.config(index).group;
    pool.members().iter().enumerate().any(|(other, member)| {
        let takes = member.admin() == Admin::Ready && member.standing() == Standing::Up && member.weight() > 0;
        other != index && takes && pool.config(other).group == *group
    })
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
