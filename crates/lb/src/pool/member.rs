//! One backend, as all threads know it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermq_config::{BackendConfig, HostName};
use tokio::sync::Notify;

use super::{AddressKind, Admin, Full, LOOK, PoolSettings, Shared};
use crate::backend::{Refusal, Standing};
use crate::balance::{Load, UNIT, rendezvous};
use crate::pacing::{BURST, Places, Rate, nanos, steady};

/// One backend.
#[derive(Debug)]
pub struct Member {
    id: u32,
    name: Box<str>,
    identity: u64,
    host: Option<HostName>,
    tls_address: Option<SocketAddr>,
    plain_address: Option<SocketAddr>,
    /// Counts how often the backend went down. A connection made under an older generation is to be closed. Apart from
    /// what each new connection writes, because every relayed byte reads it.
    generation: Apart<AtomicU64>,
    standing: AtomicU8,
    admin: AtomicU8,
    weight: AtomicU32,
    proxy_before_tls: AtomicBool,
    proxy_before_plain: AtomicBool,
    ramp: Ramp,
    connections: Places,
    handshakes: Places,
    rate: Rate,
    total: AtomicU64,
    answered: AtomicU64,
    refusals: AtomicU64,
    /// Kinds of refusals that the control thread has not seen, a bit for each.
    new_refusals: AtomicU8,
    refused: Notify,
    report: Mutex<Report>,
    pub(super) shared: Arc<Shared>,
}

/// Keeps what is read all the time out of the cache lines of what is written all the time.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// What only the control thread knows of a backend, for the control socket.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Since when the standing is what it is.
    pub since: Option<Instant>,
    /// The last failure, which may be over.
    pub last_error: Option<String>,
    /// From PINGREQ to PINGRESP.
    pub round_trip: Option<Duration>,
}

/// What each member takes from `[lb]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    rate: Option<u32>,
    handshakes: usize,
    slow_start: Duration,
}

impl Settings {
    pub(super) const fn new(settings: &PoolSettings) -> Self {
        Self {
            rate: settings.handshakes.rate_per_backend,
            handshakes: settings.handshakes.concurrent_per_backend,
            slow_start: settings.slow_start,
        }
    }
}

/// Slow start: the weight grows from the moment the backend came back.
#[derive(Debug)]
struct Ramp {
    /// Nanoseconds; 0: no slow start.
    length: AtomicU64,
    /// In nanoseconds since the epoch; [`Ramp::NEVER`] for one that has not been away.
    began: AtomicU64,
    /// It came with a reload, so its first time is a slow start too.
    joined: bool,
    has_been_up: AtomicBool,
}

impl Ramp {
    const NEVER: u64 = u64::MAX;

    /// How much counts, out of [`UNIT`].
    fn at(&self, now: u64) -> u32 {
        let (began, length) = (self.began.load(Ordering::Relaxed), self.length.load(Ordering::Relaxed));
        if began == Self::NEVER || length == 0 {
            return UNIT;
        }
        let passed = u128::from(now.saturating_sub(began)) * u128::from(UNIT) / u128::from(length);
        // Never none at all: somebody has to be the first.
        u32::try_from(passed).unwrap_or(UNIT).clamp(1, UNIT)
    }

    fn follow(&self, from: Standing, to: Standing, now: u64) {
        if to != Standing::Up {
            return;
        }
        let returns = match from {
            // An ejection is over: it was not away.
            Standing::Up | Standing::Suspect => false,
            Standing::Unproven => self.joined,
            Standing::Rejecting | Standing::NotReady | Standing::Draining | Standing::Down => true,
        };
        // At the lb's own start all begin together, also those that the lb looked for a moment before they were there.
        let is_first = !self.has_been_up.swap(true, Ordering::Relaxed);
        let begins_with_the_lb = is_first && !self.joined && now < self.length.load(Ordering::Relaxed);
        if returns && !begins_with_the_lb {
            self.began.store(now, Ordering::Relaxed);
        }
    }
}

impl Member {
    pub(super) fn new(backend: &BackendConfig, settings: Settings, shared: &Arc<Shared>, joins: bool) -> Self {
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        Self {
            id: u32::try_from(id).expect("fewer than 2^32 backends in the life of a process"),
            name: backend.name.as_str().into(),
            identity: rendezvous::key(backend.name.as_bytes()),
            host: backend.host.clone(),
            tls_address: backend.address,
            plain_address: backend.plain_address,
            generation: Apart(AtomicU64::new(0)),
            standing: AtomicU8::new(Standing::Unproven as u8),
            admin: AtomicU8::new(Admin::Ready as u8),
            weight: AtomicU32::new(backend.weight.into()),
            proxy_before_tls: AtomicBool::new(backend.send_proxy),
            proxy_before_plain: AtomicBool::new(backend.send_proxy_plain),
            ramp: Ramp {
                length: AtomicU64::new(nanos(settings.slow_start)),
                began: AtomicU64::new(Ramp::NEVER),
                joined: joins,
                has_been_up: AtomicBool::new(false),
            },
            connections: Places::new(backend.max_connections.unwrap_or(usize::MAX)),
            handshakes: Places::new(settings.handshakes),
            rate: Rate::new(settings.rate.map(steady), BURST),
            total: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            new_refusals: AtomicU8::new(0),
            refused: Notify::new(),
            report: Mutex::default(),
            shared: Arc::clone(shared),
        }
    }

    /// Whether this is the same backend in another version of the file.
    pub(super) fn is(&self, backend: &BackendConfig) -> bool {
        *self.name == *backend.name
            && self.tls_address == backend.address
            && self.plain_address == backend.plain_address
            && self.host == backend.host
    }

    /// What the file says now, where it used to say `before`.
    pub(super) fn renew(&self, before: &BackendConfig, backend: &BackendConfig, settings: Settings) {
        if before.weight != backend.weight {
            self.set_weight(backend.weight);
        }
        self.proxy_before_tls.store(backend.send_proxy, Ordering::Relaxed);
        self.proxy_before_plain.store(backend.send_proxy_plain, Ordering::Relaxed);
        self.connections.set_limit(backend.max_connections.unwrap_or(usize::MAX));
        self.handshakes.set_limit(settings.handshakes);
        self.rate.set(settings.rate.map(steady), BURST);
        self.ramp.length.store(nanos(settings.slow_start), Ordering::Relaxed);
    }

    pub(super) fn load(&self, backup: bool, open: bool, at: u64) -> Load {
        Load {
            standing: self.standing(),
            admin: self.admin(),
            backup,
            weight: u32::from(self.weight()) * UNIT,
            ramp: self.ramp.at(at),
            connections: self.connections(),
            identity: self.identity,
            open,
        }
    }

    /// Takes all that a new connection needs, or nothing.
    pub(super) fn take(&self, at: u64) -> Result<(), Full> {
        let shared = &self.shared;
        if !self.connections.take() {
            return Err(Full::Connections);
        }
        let handshakes = self.handshakes.take() && (shared.handshakes.take() || give_back(&self.handshakes));
        if !handshakes {
            self.connections.give_back();
            return Err(Full::Handshakes);
        }
        // The rates last: what is given back to a rate has kept others out for a moment.
        let all = shared.rate.take(at);
        if all && self.rate.take(at) {
            return Ok(());
        }
        if all {
            shared.rate.give_back();
        }
        self.give_back_handshake();
        self.connections.give_back();
        Err(Full::Rate)
    }

    /// Takes a place for a connection that stands already.
    pub(super) fn take_over(&self) {
        self.connections.take_anyway();
    }

    pub(super) fn give_back_connection(&self) {
        self.connections.give_back();
    }

    pub(super) fn give_back_handshake(&self) {
        self.handshakes.give_back();
        self.shared.handshakes.give_back();
    }

    /// When it might take one more, as far as is known.
    pub(super) fn ready_at(&self, at: u64) -> u64 {
        // Nobody knows when a place comes back; a connection's takes longer than a handshake's.
        let look = nanos(LOOK);
        let places = match (self.connections.is_full(), self.handshakes.is_full() || self.shared.handshakes.is_full()) {
            (true, _) => at + 4 * look,
            (false, true) => at + look,
            (false, false) => at,
        };
        places.max(self.rate.ready_at(at))
    }

    pub(super) fn count(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Its number, which no other backend gets while this process lives.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Its name; its host's for a broker of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its host, if that is one of the cluster.
    #[must_use]
    pub const fn host(&self) -> Option<&HostName> {
        self.host.as_ref()
    }

    /// Where it is: the address for TLS, or else that for plain MQTT.
    ///
    /// # Panics
    /// Never for what was read from a file: a backend has an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.tls_address.or(self.plain_address).expect("a backend has an address")
    }

    /// Its address of that kind, if it has one.
    #[must_use]
    pub const fn address_for(&self, kind: AddressKind) -> Option<SocketAddr> {
        match kind {
            AddressKind::Tls => self.tls_address,
            AddressKind::Plain => self.plain_address,
        }
    }

    /// Whether a PROXY protocol header goes first on connections of that kind.
    #[must_use]
    pub fn sends_proxy(&self, kind: AddressKind) -> bool {
        match kind {
            AddressKind::Tls => &self.proxy_before_tls,
            AddressKind::Plain => &self.proxy_before_plain,
        }
        .load(Ordering::Relaxed)
    }

    /// What it is good for.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::from_u8(self.standing.load(Ordering::Acquire)).expect("only standings are stored")
    }

    /// Makes a new standing known. With `Down`, all connections made until now are to be closed.
    pub fn set_standing(&self, standing: Standing, now: Instant) {
        let from = self.standing.swap(standing as u8, Ordering::AcqRel);
        if let Some(from) = Standing::from_u8(from) {
            self.ramp.follow(from, standing, self.shared.epoch.nanos(now));
        }
        if standing == Standing::Down {
            self.generation.0.fetch_add(1, Ordering::AcqRel);
        }
        self.shared.changed.notify_one();
    }

    /// What the operator wants of it.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::from_u8(self.admin.load(Ordering::Acquire)).expect("only these are stored")
    }

    /// What the operator wants of it from now on. With `Maint`, all connections made until now are to be closed.
    pub fn set_admin(&self, admin: Admin) {
        let from = self.admin.swap(admin as u8, Ordering::AcqRel);
        if admin == Admin::Maint && from != Admin::Maint as u8 {
            self.generation.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Its share beside the others'.
    #[must_use]
    pub fn weight(&self) -> u16 {
        u16::try_from(self.weight.load(Ordering::Relaxed)).unwrap_or(u16::MAX)
    }

    /// Its share from now on; 0: no new clients.
    pub fn set_weight(&self, weight: u16) {
        self.weight.store(weight.into(), Ordering::Relaxed);
    }

    /// How much of its weight counts at `now`, in percent: less than 100 in slow start.
    #[must_use]
    pub fn ramp_percent(&self, now: Instant) -> u32 {
        self.ramp.at(self.shared.epoch.nanos(now)) * 100 / UNIT
    }

    /// How often it has gone down, or was taken out for maintenance.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.0.load(Ordering::Acquire)
    }

    /// Connections now, those being made included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.taken()
    }

    /// Handshakes under way.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.handshakes.taken()
    }

    /// Connections made since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Connections whose handshake it has finished, since the start.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Clients that it did not let in since the start.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// A client was not let in: the next one goes elsewhere at once, and the control thread decides.
    pub fn refuse(&self, refusal: Refusal) {
        // Nothing to do where it was no longer up: the control thread knows more already.
        if !refusal.is_doubtful() {
            let _ = self.standing.compare_exchange(
                Standing::Up as u8,
                Standing::Suspect as u8,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        self.new_refusals.fetch_or(1 << refusal as u8, Ordering::AcqRel);
        self.refusals.fetch_add(1, Ordering::Relaxed);
        self.refused.notify_one();
    }

    /// Waits until a client has not been let in since the last call; in which ways.
    pub async fn refused(&self) -> impl Iterator<Item = Refusal> + use<> {
        self.refused.notified().await;
        let new = self.new_refusals.swap(0, Ordering::AcqRel);
        Refusal::ALL.into_iter().filter(move |&refusal| new & (1 << refusal as u8) != 0)
    }

    /// What the control thread knows.
    pub fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the place back; false, for what could not be had beside it.
fn give_back(places: &Places) -> bool {
    places.give_back();
    false
}
