//! The loop of one worker: waits for epoll, time and orders, and gives each connection its turn.
//!
//! Nothing in here waits for anything else. What may be much is done in portions: a bulk transfer moves a bounded number of
//! bytes in a turn, a listener accepts a bounded number of clients, and of connections that are to be closed a bounded number
//! is. Whoever has more to do comes again after all others have had their turn.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};
use slab::Slab;

use super::connection::{Connection, Fate, Phase, Side};
use super::core::{Core, Name};
use super::ended::Why;
use super::listener::{ListenerLost, Listening, Shortage};
use super::orders::Sweep;
use super::worker::{Front, Settings, Worker};
use super::{connecting, greeting, relaying};
use crate::pulse::BEAT;

/// Events taken from epoll at one time.
const EVENTS: usize = 256;
/// Deadlines worked off in one turn.
const PORTION: usize = 256;
/// How long news of clients is gathered before it is handed on.
const GATHER: Duration = Duration::from_millis(5);
/// What epoll calls the inbox, and the first of the listeners; the others count down from there.
pub(crate) const INBOX: Token = Token(usize::MAX);
pub(crate) const LISTENERS: usize = usize::MAX - 1;
/// Listeners of one worker at most: far more than a file has.
const MAX_LISTENERS: usize = 1 << 16;

/// A worker's loop.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(super) core: Core,
    poll: Poll,
    pub(super) connections: Slab<Connection>,
    pub(super) listeners: Vec<Listening>,
    /// Those that have more to do.
    again: VecDeque<Name>,
    generation: u32,
    pub(super) next_id: u64,
    next_beat: Instant,
    /// When news of clients is handed on.
    news_at: Option<Instant>,
    /// Why connections are being closed, and how far that has come.
    pub(super) sweep: Option<(Sweep, usize)>,
    pub(super) closing: bool,
    pub(super) stopping: bool,
    /// Clients that come are left in the kernel's queue, whatever else there is room for.
    pub(super) held: bool,
    pub(super) shortage: Shortage,
    /// Accepting rests until then, for want of descriptors or memory.
    pub(super) rests_until: Option<Instant>,
    /// The limit is reached; by then some client may have said nothing for so long that it has to make room.
    pub(super) full_until: Option<Instant>,
    pub(super) victims: VecDeque<Name>,
    pub(super) searched: Option<Instant>,
    lost: Option<ListenerLost>,
}

impl Engine {
    /// A loop that polls `poll`, which the worker's inbox is registered with.
    ///
    /// # Errors
    /// Epoll does not take the listeners.
    pub(crate) fn new(
        poll: Poll,
        worker: Arc<Worker>,
        settings: Arc<Settings>,
        fronts: Arc<[Front]>,
        listeners: Vec<(u16, std::net::TcpListener)>,
        first_id: u64,
    ) -> io::Result<Self> {
        let now = clock();
        let core = Core::new(worker, settings, fronts, &poll, now)?;
        let listeners = listeners
            .into_iter()
            .take(MAX_LISTENERS)
            .map(|(front, socket)| Listening::new(socket, front, Token(LISTENERS - usize::from(front)), &core))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            core,
            poll,
            connections: Slab::new(),
            listeners,
            again: VecDeque::new(),
            generation: 0,
            next_id: first_id,
            next_beat: now,
            news_at: None,
            sweep: None,
            closing: false,
            stopping: false,
            held: false,
            shortage: Shortage::default(),
            rests_until: None,
            full_until: None,
            victims: VecDeque::new(),
            searched: None,
            lost: None,
        })
    }

    /// Serves until it is told to stop and its clients have left, or it is told to close them.
    ///
    /// # Errors
    /// Epoll fails, or a listener could not be used any more.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            self.core.now = clock();
            self.take_turn(&events);
            if self.stopping && self.connections.is_empty() {
                return self.lost.map_or(Ok(()), |lost| Err(lost.into()));
            }
        }
    }

    fn take_turn(&mut self, events: &Events) {
        // Those that had more to do before this turn come after those that epoll has something of.
        let waiting = self.again.len();
        self.core.handshakes.begin_turn();
        let mut accept = false;
        let mut orders = false;
        let mut count = 0;
        for event in events {
            count += 1;
            match event.token() {
                INBOX => orders = true,
                Token(token) if token > LISTENERS - MAX_LISTENERS => accept = true,
                token => self.handle_event(token, event),
            }
        }
        for _ in 0..waiting {
            let Some(name) = self.again.pop_front() else { break };
            if let Some(connection) = self.connection(name) {
                connection.queued = false;
                self.advance(name, false);
            }
        }
        orders |= self.keep_time();
        self.begin_handshakes();
        if orders {
            self.take_orders();
        }
        self.work_off_sweep();
        if accept {
            // As many as keep up with what else there is to do: the next turn is a system call away.
            self.accept_clients(1 + count / 4);
        }
    }

    /// Those who have waited for a place among the handshakes, and who may have to give theirs up.
    fn begin_handshakes(&mut self) {
        while let Some(name) = self.core.handshakes.overdue(self.core.now) {
            if self.connection(name).is_none() {
                break;
            }
            self.end(name, Why::Evicted);
        }
        while let Some(name) = self.core.handshakes.next(self.core.now) {
            if self.connection(name).is_some() {
                self.advance(name, false);
            }
        }
    }

    /// How long epoll may wait.
    fn patience(&self) -> Option<Duration> {
        if !self.again.is_empty() || self.sweep.is_some() {
            return Some(Duration::ZERO);
        }
        let due = [
            self.news_at,
            self.rests_until,
            self.full_until,
            self.core.timers.poll_timeout(),
            self.core.lobby.poll_timeout(),
        ]
        .into_iter()
        .flatten();
        let next = due.fold(self.next_beat, Instant::min);
        Some(next.saturating_duration_since(self.core.now))
    }

    fn handle_event(&mut self, token: Token, event: &Event) {
        let (name, side) = Name::of(token);
        // Closed earlier in this turn.
        let Some(connection) = self.connection(name) else { return };
        let failed = event.is_error() || event.is_write_closed();
        let hangup = event.is_read_closed() || failed;
        let (readable, writable) = match side {
            Side::Client => (&mut connection.to_backend.flow, &mut connection.to_client.flow),
            Side::Backend => (&mut connection.to_client.flow, &mut connection.to_backend.flow),
        };
        if event.is_readable() || hangup {
            readable.handle_readable(hangup);
        }
        if event.is_writable() || failed {
            writable.handle_writable();
        }
        match (connection.phase, side) {
            (Phase::Connecting, Side::Backend) => {
                if event.is_writable() || failed {
                    self.advance(name, failed);
                }
            }
            // It is gone for good, and nobody has heard of it yet.
            (Phase::Connecting | Phase::Securing | Phase::Pausing, Side::Client) => {
                if failed {
                    self.end(name, Why::ClientReset);
                }
            }
            // Nobody is there any more who could shake hands.
            (Phase::Waiting, Side::Client) => {
                if hangup {
                    self.end(name, if failed { Why::ClientReset } else { Why::ClientClosed });
                }
            }
            (Phase::Waiting | Phase::Pausing, Side::Backend) => {}
            (Phase::Securing, Side::Backend) | (Phase::Greeting | Phase::Relaying, _) => self.advance(name, false),
        }
    }

    /// Takes a connection as far as it goes.
    fn advance(&mut self, name: Name, failed: bool) {
        let Some(connection) = self.connections.get_mut(name.key as usize) else { return };
        let core = &mut self.core;
        let fate = match connection.phase {
            Phase::Greeting => greeting::advance(connection, name, core),
            Phase::Waiting => Fate::Waits,
            Phase::Connecting => connecting::advance(connection, name, core, failed),
            Phase::Securing => connecting::secure(connection, name, core),
            Phase::Pausing => connecting::begin(connection, name, core),
            Phase::Relaying => relaying::advance(connection, name, core),
        };
        self.settle(name, fate);
    }

    pub(super) fn settle(&mut self, name: Name, fate: Fate) {
        match fate {
            Fate::Waits => {}
            Fate::Again => {
                if let Some(connection) = self.connection(name)
                    && !std::mem::replace(&mut connection.queued, true)
                {
                    self.again.push_back(name);
                }
            }
            Fate::Ends(why) => self.end(name, why),
        }
    }

    pub(super) fn connection(&mut self, name: Name) -> Option<&mut Connection> {
        self.connections.get_mut(name.key as usize).filter(|connection| connection.generation == name.generation)
    }

    /// Does what is due. Whether it was time for a beat, at which orders are looked for in any case.
    fn keep_time(&mut self) -> bool {
        let now = self.core.now;
        let beat = now >= self.next_beat;
        let mut resume = false;
        if beat {
            self.core.worker.count_beat();
            self.next_beat = now + BEAT;
        }
        self.core.timers.handle_timeout(now);
        for _ in 0..PORTION {
            let Some(key) = self.core.timers.poll_due() else { break };
            self.time_out(key);
        }
        self.serve_lobby();
        for rest in [&mut self.rests_until, &mut self.full_until] {
            if rest.take_if(|until| *until <= now).is_some() {
                resume = true;
            }
        }
        if resume {
            self.resume();
        }
        if let Some(clients) = self.core.worker.clients() {
            if self.news_at.is_some_and(|at| at <= now) {
                self.news_at = None;
                clients.hand_on();
            }
            if self.news_at.is_none() && clients.has_news() {
                self.news_at = Some(now + GATHER);
            }
        }
        beat
    }

    fn time_out(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let name = Name { key, generation: connection.generation };
        let core = &mut self.core;
        let fate = match connection.phase {
            Phase::Greeting => Fate::Ends(Why::GreetingTimeout),
            // The lobby has a deadline of its own for it.
            Phase::Waiting => Fate::Waits,
            Phase::Connecting | Phase::Securing => connecting::time_out(connection, name, core),
            Phase::Pausing => connecting::begin(connection, name, core),
            Phase::Relaying => relaying::time_out(connection, name, core),
        };
        self.settle(name, fate);
    }

    /// One more than the highest key in use.
    pub(super) fn highest(&self) -> usize {
        self.connections.iter().next_back().map_or(0, |(key, _)| key + 1)
    }

    /// What epoll will call the connection that is taken in next.
    pub(super) fn next_name(&mut self) -> Name {
        self.generation = (self.generation + 1) & Name::GENERATIONS;
        let key = u32::try_from(self.connections.vacant_key()).expect("fewer connections than descriptors");
        Name { key, generation: self.generation }
    }

    /// A listener is lost: the lb hands over, and this worker serves whom it has until it is told to stop.
    pub(super) fn lose_listeners(&mut self, lost: ListenerLost) {
        tracing::error!(error = %lost, "a worker does not accept clients any more");
        self.listeners.clear();
        self.core.worker.lost.cancel();
        self.lost.get_or_insert(lost);
    }
}

/// Numbers of connections: the time of the start, and in the lowest bits the worker, so that no two on a host are equal.
pub(crate) const ID_STEP: u64 = 1 << 8;

#[expect(clippy::disallowed_methods, reason = "the worker's clock")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
