//! This process as the one that succeeds another: what it does at each step.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::control::{Client, Control, Estate, Lending, Placement};
use evermq_daemon::health::Health;
use evermq_daemon::{kept, notify};
use nix::sys::socket::Backlog;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Stage, giving, serve_control};
use crate::admin::{self, Admin, Stamp};
use crate::desk::Desk;
use crate::engine::inbox::Order;
use crate::peers::Exchange;
use crate::pulse::BEAT;
use crate::reload::Reloader;
use crate::upgrade::message::{Record, Word};
use crate::upgrade::parcel::Carried;
use crate::upgrade::taker::Heir;

/// For the backends that are up for the other process to be so for this one. Shorter than that one waits.
const REACH: Duration = Duration::from_secs(10);

/// Connections that the kernel keeps for the control socket.
const BACKLOG: i32 = 128;

/// For the other process to leave the address where figures are shown.
const METRICS: Duration = Duration::from_secs(2);

/// This process.
pub(super) struct Successor {
    pub(super) desk: Arc<Desk>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) stage: watch::Sender<Stage>,
    /// Taken at the step that they belong to.
    pub(super) control: Option<ControlSocket>,
    pub(super) exchange: Option<Exchange>,
    pub(super) reloader: Option<Reloader>,
    /// Where the figures are to be shown once the other process does not any more.
    pub(super) metrics: Option<SocketAddr>,
    pub(super) tasks: TaskTracker,
    /// Ends what only one process can do.
    pub(super) singular: CancellationToken,
    pub(super) end: CancellationToken,
}

/// What serving the control socket takes.
pub(super) struct ControlSocket {
    pub(super) listener: UnixListener,
    pub(super) control: Control,
    pub(super) placement: Placement,
    pub(super) lending: Lending,
}

impl ControlSocket {
    /// Whoever connects learns from the socket which process listens: from now on this one.
    fn answer_for_it(&self) {
        let listened = Backlog::new(BACKLOG).and_then(|backlog| nix::sys::socket::listen(&self.listener, backlog));
        if let Err(errno) = listened {
            tracing::warn!(%errno, "the control socket names the process before as its owner");
        }
    }

    /// Serves it, also those who had connected to the process before.
    pub(super) fn serve(self, clients: Vec<Client>, tasks: &TaskTracker, end: CancellationToken) {
        let Self { listener, control, placement, lending } = self;
        tasks.spawn(serve_control(Estate { listener, clients }, control, placement, lending, end));
    }
}

impl Successor {
    /// There is no process before this one.
    pub(super) fn begin(&mut self, metrics: Option<TcpListener>) {
        if let Some(control) = self.control.take() {
            control.serve(Vec::new(), &self.tasks, self.end.clone());
        }
        self.begin_what_is_singular(metrics);
    }

    /// What systemd listens to only if this process is the main one belongs here.
    fn begin_what_is_singular(&mut self, metrics: Option<TcpListener>) {
        kept::close_unclaimed();
        self.desk.order(|| Order::Keep);
        if let Some(exchange) = self.exchange.take() {
            self.tasks.spawn(exchange.run(Arc::clone(&self.desk.workers), self.singular.clone()));
        }
        if let Some(mut reloader) = self.reloader.take() {
            reloader.metrics.turn_to(metrics, &self.desk);
            self.tasks.spawn(reloader.run(self.end.clone()));
        }
        notify::ready("serving");
    }

    /// The other process has been told to leave the address, and does so within its next turn.
    async fn bind_metrics(&self) -> Option<TcpListener> {
        let address = self.metrics?;
        let deadline = tokio::time::Instant::now() + METRICS;
        loop {
            match evermq_daemon::metrics::bind(address) {
                Ok(listener) => return Some(listener),
                Err(error) if tokio::time::Instant::now() >= deadline => {
                    tracing::error!(%error, "the figures are not shown");
                    return None;
                }
                Err(_) => tokio::time::sleep(BEAT).await,
            }
        }
    }

    fn missing(&self, up: &[String]) -> Option<String> {
        let pool = self.desk.pool();
        let mut members = pool.members().iter();
        let missing =
            members.find(|member| up.iter().any(|up| up == member.name()) && !member.standing().has_session())?;
        let error = missing.report().last_error.clone();
        let error = error.map(|error| format!(": {error}")).unwrap_or_default();
        Some(format!("the new process does not reach {}, which is up for the old one{error}", missing.name()))
    }

    async fn reach(&mut self, up: &[String]) {
        loop {
            if self.missing(up).is_none() && *self.health.borrow_and_update() != Health::Down {
                return;
            }
            // Not every session that is made changes the health.
            let _ = tokio::time::timeout(BEAT, self.health.changed()).await;
        }
    }

    fn enter(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}

impl Heir for Successor {
    async fn prepare(&mut self, up: &[String]) -> Result<(), String> {
        if tokio::time::timeout(REACH, self.reach(up)).await.is_ok() {
            return Ok(());
        }
        Err(self.missing(up).unwrap_or_else(|| "the new process's workers do not turn".to_owned()))
    }

    async fn take_charge(&mut self, clients: Vec<Client>, words: Vec<Word>) {
        for word in words {
            let Some(admin) = Admin::from_name(&word.state) else { continue };
            let stamp = Stamp { time: word.time, host: word.host };
            self.desk.board.hear(&word.backend, admin::Word { admin, rate: word.rate, weight: word.weight, stamp });
        }
        self.desk.apply_words();
        self.enter(Stage::InCharge);
        self.desk.order(|| Order::Unhold);
        if let Some(control) = self.control.take() {
            control.answer_for_it();
            control.serve(clients, &self.tasks, self.end.clone());
        }
    }

    fn objection(&self, record: &Record) -> Option<String> {
        let in_force = self.desk.in_force();
        let Some(front) = in_force.fronts.iter().find(|front| *front.name == *record.listener) else {
            return Some(format!("there is no listener {} any more", record.listener));
        };
        if front.mode.name() != record.mode {
            return Some(format!("listener {} has another mode now", record.listener));
        }
        let Some(member) = in_force.pool.members().iter().find(|member| member.name() == record.backend) else {
            return Some(format!("there is no backend {} any more", record.backend));
        };
        (member.address() != record.backend_address)
            .then(|| format!("backend {} has another address now", record.backend))
    }

    async fn import(&mut self, connections: Vec<Carried>) {
        giving::import(&self.desk, connections, false);
    }

    async fn settle(&mut self) {
        self.enter(Stage::Settled);
        let metrics = self.bind_metrics().await;
        self.begin_what_is_singular(metrics);
        tracing::info!("this process has taken over");
    }

    async fn farewell(&mut self) {
        self.enter(Stage::Alone);
        tracing::info!("the process before has ended");
    }
}
