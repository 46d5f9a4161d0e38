//! Drives every backend's [`health`](crate::health) machine and [`Backend`]: sockets, TLS, the clock, randomness.
//!
//! One task for each backend, owned by [`Probes`] on the control thread, ended by its token. Every future in [`Link`] is kept
//! over turns of the loop, so an input that wins never costs another one its progress.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evermq_config::{BackendConfig, LbConfig};
use evermq_daemon::cluster_topics;
use evermq_daemon::listen::{self, SocketOptions};
use evermq_daemon::tls::{Material, TlsError};
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::{Packet, Text};
use rustls::pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::backend::{self, Backend, Failed, Standing};
use crate::ejection::Ejections;
use crate::health::Failure;
use crate::pool::{Member, Pool};
use link::{Event, Link, connect_failure, session_failure};
use machine::{Machine, Plan, Step};

mod link;
mod machine;
mod packets;

/// All that a broker may send here is CONNACK, PINGRESP, SUBACK and a word about itself.
const LIMITS: Limits = Limits { max_packet_size: 256 };
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(100);
/// Lists of clients that may wait for one backend's session: some seconds' worth, as lists come some ten times a second.
const LISTS: usize = 64;

/// Tells the workers that a backend went down, so that its clients leave.
pub(crate) type Sweep = Arc<dyn Fn() + Send + Sync>;

/// All probes of this lb.
pub(crate) struct Probes {
    shared: Arc<Shared>,
    running: Vec<Running>,
    tasks: JoinSet<()>,
}

/// What every probe of this lb shares.
struct Shared {
    /// What the MQTT client identifiers begin with.
    client_id: Text,
    sweep: Sweep,
    ejections: Mutex<Ejections>,
}

/// One of them.
struct Running {
    member: Arc<Member>,
    plan: Plan,
    group: String,
    tls: Arc<Mutex<TlsConnector>>,
    handle: ProbeHandle,
    end: CancellationToken,
}

/// What others ask of a probe.
#[derive(Debug, Clone)]
pub(crate) struct ProbeHandle {
    heard: Arc<AtomicBool>,
    lists: mpsc::Sender<Vec<SocketAddr>>,
}

impl ProbeHandle {
    /// Asks the broker to send these clients away, known by this host's end of their connection to it. False: there is no
    /// EverMQ broker that listens to us, or it has been asked for very many already; then the connections can only be closed.
    #[must_use]
    pub(crate) fn disconnect(&self, clients: Vec<SocketAddr>) -> bool {
        self.heard.load(Ordering::Acquire) && self.lists.try_send(clients).is_ok()
    }
}

impl Probes {
    /// None yet.
    pub(crate) fn new(client_id: Text, sweep: Sweep) -> Self {
        let shared = Shared { client_id, sweep, ejections: Mutex::new(Ejections::new(0)) };
        Self { shared: Arc::new(shared), running: Vec::new(), tasks: JoinSet::new() }
    }

    /// Probes the pool's backends as `config` says, from within the control thread's runtime. A session that stands goes on
    /// standing where nothing has changed for it; `material` counts from its next connection on.
    ///
    /// # Errors
    /// Certificate and key do not belong together; nothing has changed then.
    pub(crate) fn apply(&mut self, pool: &Pool, config: &LbConfig, material: &Material) -> Result<(), TlsError> {
        let connectors: Vec<TlsConnector> = config
            .backends
            .iter()
            .map(|backend| {
                let address = backend.address.or(backend.plain_address).map(|address| address.ip());
                let address = address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
                let mut tls = material.client_config_at(address)?;
                if backend.host.is_some() {
                    Arc::make_mut(&mut tls).alpn_protocols = vec![cluster_topics::ALPN.to_vec()];
                }
                Ok(tls.into())
            })
            .collect::<Result<_, TlsError>>()?;
        self.shared.ejections().set_max_percent(config.lb.health.max_ejected);
        let mut before = std::mem::take(&mut self.running);
        for ((member, backend), tls) in pool.members().iter().zip(&config.backends).zip(connectors) {
            let plan = Plan::of(backend, config);
            let old = before.iter().position(|running| Arc::ptr_eq(&running.member, member));
            let running = match old.map(|index| before.swap_remove(index)) {
                Some(same) if same.plan == plan && same.group == backend.group => {
                    *lock(&same.tls) = tls;
                    same
                }
                Some(other) => {
                    other.end.cancel();
                    self.start(member, backend, plan, tls, config)
                }
                None => self.start(member, backend, plan, tls, config),
            };
            self.running.push(running);
        }
        for gone in before {
            gone.end.cancel();
        }
        // Those that have ended meanwhile.
        while self.tasks.try_join_next().is_some() {}
        Ok(())
    }

    /// The probe of that backend.
    pub(crate) fn handle(&self, member: &Member) -> Option<&ProbeHandle> {
        self.running.iter().find(|running| running.member.id() == member.id()).map(|running| &running.handle)
    }

    /// Ends all of them, after a farewell to the brokers.
    pub(crate) async fn stop(mut self) {
        for running in &self.running {
            running.end.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn start(
        &mut self,
        member: &Arc<Member>,
        backend: &BackendConfig,
        plan: Plan,
        tls: TlsConnector,
        config: &LbConfig,
    ) -> Running {
        let (lists, asked) = mpsc::channel(LISTS);
        let handle = ProbeHandle { heard: Arc::default(), lists };
        let (tls, end) = (Arc::new(Mutex::new(tls)), CancellationToken::new());
        let probe = Probe::new(member, backend, plan, Arc::clone(&tls), &self.shared, &handle, asked, config);
        self.tasks.spawn(probe.run(end.clone()));
        Running { member: Arc::clone(member), plan, group: backend.group.clone(), tls, handle, end }
    }
}

impl Shared {
    fn ejections(&self) -> MutexGuard<'_, Ejections> {
        lock(&self.ejections)
    }
}

/// The probe of one backend.
struct Probe {
    member: Arc<Member>,
    address: SocketAddr,
    server_name: ServerName<'static>,
    plan: Plan,
    tls: Arc<Mutex<TlsConnector>>,
    socket: SocketOptions,
    shared: Arc<Shared>,
    heard: Arc<AtomicBool>,
    lists: mpsc::Receiver<Vec<SocketAddr>>,
    /// Its number in [`Ejections`].
    ejection: u64,
    machine: Machine,
    backend: Backend,
    link: Link,
}

impl Probe {
    #[expect(clippy::too_many_arguments, reason = "one caller")]
    fn new(
        member: &Arc<Member>,
        backend: &BackendConfig,
        plan: Plan,
        tls: Arc<Mutex<TlsConnector>>,
        shared: &Arc<Shared>,
        handle: &ProbeHandle,
        lists: mpsc::Receiver<Vec<SocketAddr>>,
        config: &LbConfig,
    ) -> Self {
        let now = clock();
        let address = member.address();
        let standing = member.standing();
        member.report().since.get_or_insert(now);
        Self {
            member: Arc::clone(member),
            address,
            // A name that no certificate can carry leaves the address, which the verifier takes as well.
            server_name: ServerName::try_from(backend.name.clone())
                .unwrap_or_else(|_| ServerName::IpAddress(address.ip().into())),
            plan,
            tls,
            socket: SocketOptions { keepalive: config.lb.tcp_keepalive, user_timeout: config.lb.tcp_user_timeout },
            shared: Arc::clone(shared),
            heard: Arc::clone(&handle.heard),
            lists,
            ejection: shared.ejections().enter(&backend.group, standing),
            machine: Machine::new(plan, RandomState::new().build_hasher().finish(), now),
            backend: Backend::of(standing),
            link: Link::Closed,
        }
    }

    /// Probes until `end`, then says farewell.
    async fn run(mut self, end: CancellationToken) {
        let member = Arc::clone(&self.member);
        loop {
            self.act().await;
            let deadline = [self.machine.poll_timeout(), self.backend.poll_timeout()].into_iter().flatten().min();
            tokio::select! {
                // What has arrived comes before the time that has passed: after a pause of this machine the answer may be
                // there already.
                biased;
                () = end.cancelled() => break,
                event = self.link.next() => self.handle_event(event),
                refusals = member.refused() => refusals.for_each(|refusal| self.handle_refusal(refusal)),
                Some(clients) = self.lists.recv() => self.disconnect(&clients).await,
                () = until(deadline) => {
                    let now = clock();
                    self.machine.handle_timeout(now);
                    self.backend.handle_timeout(now);
                }
            }
        }
        self.say_farewell().await;
    }

    fn handle_event(&mut self, event: Event) {
        let now = clock();
        match event {
            Event::Connected(Ok(stream)) => {
                if let Err(error) = listen::tune(&stream, self.socket) {
                    tracing::debug!(%error, "the probe's socket options");
                }
                self.link = Link::Connected(stream);
                self.machine.handle_connected(now);
            }
            Event::Secured(Ok(stream)) => {
                self.link = Link::opened(stream);
                self.machine.handle_secured(now);
            }
            Event::Connected(Err(error)) => self.machine.handle_failure(connect_failure(&error), now),
            Event::Secured(Err(error)) | Event::Received(Err(error)) => {
                self.machine.handle_failure(session_failure(&error), now);
            }
            Event::Received(Ok(0)) => self.machine.handle_failure(Failure::Closed, now),
            Event::Received(Ok(_)) => self.handle_input(now),
        }
    }

    fn handle_input(&mut self, now: Instant) {
        while let Link::Open { input, .. } = &mut self.link {
            match codec::decode(input, packets::VERSION, &LIMITS) {
                Ok(Some(packet)) => {
                    self.machine.handle_packet(&packet, now);
                    self.member.report().round_trip = self.machine.round_trip();
                }
                Ok(None) => break,
                Err(error) => {
                    self.machine.handle_failure(Failure::Rejected(error.to_string()), now);
                    break;
                }
            }
        }
    }

    fn handle_refusal(&mut self, refusal: backend::Refusal) {
        let may_eject = self.shared.ejections().may_eject(self.ejection);
        let failed = Failed { refusal, answered: self.member.answered(), may_eject };
        self.backend.handle_refusal(failed, clock());
    }

    /// Does what both machines want done.
    async fn act(&mut self) {
        while let Some(step) = self.machine.poll_step() {
            match step {
                Step::Open => self.link = Link::connecting(self.address, self.plan.proxy),
                Step::Secure => {
                    let tls = lock(&self.tls).clone();
                    self.link.secure(&tls, self.server_name.clone());
                }
                Step::Introduce => {
                    self.link.open_if_plain();
                    self.send(packets::connect(&self.shared.client_id, self.member.name(), self.plan.health.timeout))
                        .await;
                }
                Step::Ping => self.send(Packet::PingReq).await,
                Step::Subscribe => self.send(packets::subscribe_state()).await,
                Step::Farewell => self.send(packets::farewell()).await,
                Step::Close => self.link.close(),
                Step::Alive(reason) => self.backend.handle_alive(reason),
                Step::Says(readiness) => self.backend.handle_readiness(readiness),
                Step::Missed(failure) => self.note(&failure),
                Step::Failed(failure) => {
                    self.note(&failure);
                    self.backend.handle_session_failed(failure);
                }
            }
        }
        self.member.report().round_trip = self.machine.round_trip();
        self.heard.store(self.machine.is_heard(), Ordering::Release);
        while let Some(action) = self.backend.poll_action() {
            match action {
                backend::Action::Change { from, to, reason } => self.make_known(from, to, &reason),
                backend::Action::CloseClients => (self.shared.sweep)(),
            }
        }
        // A worker that was refused has marked the backend; here is where it is decided whether that stays.
        let standing = self.backend.standing();
        if self.member.standing() != standing {
            self.member.set_standing(standing, clock());
        }
    }

    fn note(&self, failure: &Failure) {
        tracing::debug!(backend = %self.member.name(), %failure, "probe failed");
        let mut report = self.member.report();
        report.last_error = Some(failure.to_string());
        report.round_trip = None;
    }

    fn make_known(&self, from: Standing, to: Standing, reason: &backend::Reason) {
        let (member, now) = (&self.member, clock());
        self.shared.ejections().set(self.ejection, to);
        member.set_standing(to, now);
        member.report().since = Some(now);
        tracing::info!(
            backend = %member.name(),
            address = %self.address,
            from = from.name(),
            to = to.name(),
            %reason,
            connections = member.connections(),
            "backend changed"
        );
    }

    async fn disconnect(&mut self, clients: &[SocketAddr]) {
        if !self.machine.is_heard() {
            tracing::debug!(backend = %self.member.name(), clients = clients.len(), "the session ended before they were sent away");
            return;
        }
        for packet in packets::disconnect_clients(clients) {
            self.send(packet).await;
        }
    }

    /// Sends one of the few small packets. As a rule they fit into the socket's buffer; the time limit is for a backend that
    /// does not read.
    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        let written = match codec::encode(&packet, packets::VERSION, &mut bytes) {
            Ok(()) => tokio::time::timeout(self.plan.health.timeout, self.link.write(&bytes)).await,
            Err(error) => Ok(Err(io::Error::other(error))),
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.machine.handle_failure(session_failure(&error), clock()),
            Err(_) => self.machine.handle_failure(Failure::NoAnswer, clock()),
        }
    }

    async fn say_farewell(&mut self) {
        if matches!(self.link, Link::Open { .. }) {
            let _ = tokio::time::timeout(FAREWELL, self.send(packets::farewell())).await;
        }
        self.link.close();
        self.heard.store(false, Ordering::Release);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.ejections().leave(self.ejection);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}
