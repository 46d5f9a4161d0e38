//! Accepting in a worker's turn: how many, and what happens where there is no room.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::connection::{Connection, Phase, Turns};
use super::core::{Core, Name};
use super::ended::Why;
use super::listener::{ListenerLost, PAUSE, Trouble};
use super::socket;
use super::turn::{Engine, ID_STEP};
use evermq_daemon::eviction::{Silent, victims};
use evermq_daemon::kept;

/// Clients accepted from one listener in one turn at most.
const PORTION: usize = 64;
/// Between two searches for those who may have to.
const SEARCH: Duration = Duration::from_millis(100);

/// Counts a client among those of its address, once that is known.
///
/// # Errors
/// The address is at one of its limits.
pub(super) fn enter_source(connection: &mut Connection, core: &Core) -> Result<(), Why> {
    let entered = core.worker.sources.enter(connection.from.ip(), core.now);
    connection.place = Some(entered.map_err(|refused| {
        tracing::debug!(client = %connection.from, %refused, "refusing a client");
        Why::SourceLimit
    })?);
    Ok(())
}

impl Engine {
    /// Accepts clients, so many from each listener at most.
    pub(super) fn accept_clients(&mut self, most: usize) {
        for index in 0..self.listeners.len() {
            if let Err(lost) = self.accept_from(index, most.min(PORTION)) {
                return self.lose_listeners(lost);
            }
        }
    }

    fn accept_from(&mut self, index: usize, most: usize) -> Result<(), ListenerLost> {
        for _ in 0..most {
            if self.listeners[index].is_paused() {
                break;
            }
            if !self.enter() {
                self.wait_for_room()?;
                break;
            }
            match self.accept_one(index) {
                Ok(true) => {}
                Ok(false) => {
                    self.core.worker.gate.leave();
                    break;
                }
                Err(lost) => {
                    self.core.worker.gate.leave();
                    return Err(lost);
                }
            }
        }
        Ok(())
    }

    /// Takes a place under the limit, perhaps that of a client that says nothing.
    fn enter(&mut self) -> bool {
        let now = self.core.now;
        self.core.worker.gate.try_enter(now) || (self.make_room() && self.core.worker.gate.try_enter(now))
    }

    /// Accepts one client into a place that has been taken; `false` if there is none to accept now.
    fn accept_one(&mut self, index: usize) -> Result<bool, ListenerLost> {
        let listening = &self.listeners[index];
        match listening.socket.accept() {
            Ok((client, from)) => {
                let front = listening.front;
                self.shortage.over();
                self.admit(OwnedFd::from(client), from, front);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => match Trouble::of(&error) {
                Trouble::Client => {
                    tracing::debug!(%error, "a client left before it was accepted");
                    Ok(false)
                }
                Trouble::Shortage => {
                    self.shortage.begin(&error, self.core.now);
                    self.rests_until = Some(self.core.now + PAUSE);
                    self.pause(true)?;
                    Ok(false)
                }
                Trouble::Listener => Err(error.into()),
            },
        }
    }

    /// Takes in a client that has a place under the limit.
    pub(super) fn admit(&mut self, client: OwnedFd, from: SocketAddr, front: u16) {
        let name = self.next_name();
        let mut connection = Connection::new(client, from, front, self.next_id, name.generation, self.core.now);
        self.next_id += ID_STEP;
        if self.core.fronts[usize::from(front)].mode.sees_mqtt() {
            connection.turns = Turns::PLAIN;
        }
        connection.awaits_header = self.core.settings.is_proxy(from.ip());
        self.core.worker.count_accepted();
        self.core.fronts[usize::from(front)].figures.count_accepted(self.core.worker.index);
        // A balancer's own address says nothing of its clients.
        let entered = if connection.awaits_header { Ok(()) } else { enter_source(&mut connection, &self.core) };
        let admitted = entered.and_then(|()| {
            self.core.watch_client(&connection.client, name).map_err(|error| {
                tracing::debug!(%error, "epoll does not take a client");
                Why::Shortage
            })
        });
        if admitted.is_ok()
            && let Some(clients) = self.core.worker.clients()
            && let Some(local) = socket::local_address(&connection.client)
        {
            connection.number = clients.join(from, local).and_then(|number| (number + 1).try_into().ok());
        }
        self.connections.insert(connection);
        if let Err(why) = admitted {
            return self.end(name, why);
        }
        self.core.set_timer(name, self.core.settings.greeting_timeout);
        tracing::trace!(client = %from, "accepted");
    }

    fn pause(&mut self, pause: bool) -> io::Result<()> {
        for listening in &mut self.listeners {
            listening.pause(pause, &self.core)?;
        }
        Ok(())
    }

    /// Accepts again, if nothing else forbids it.
    pub(super) fn resume(&mut self) {
        if self.rests_until.is_some() {
            return;
        }
        self.full_until = None;
        if let Err(error) = self.pause(false) {
            self.lose_listeners(error.into());
        }
    }

    fn wait_for_room(&mut self) -> Result<(), ListenerLost> {
        self.pause(true)?;
        let (gate, index) = (&self.core.worker.gate, self.core.worker.index);
        if !gate.wait(index) {
            // Somebody left between the look and the request.
            return Ok(self.pause(false)?);
        }
        self.full_until = Some(self.core.now + SEARCH);
        Ok(())
    }

    /// Closes a client that has said nothing for long, if there is one.
    pub(super) fn make_room(&mut self) -> bool {
        let now = self.core.now;
        loop {
            while let Some(name) = self.victims.pop_front() {
                if self.is_silent(name) {
                    self.end(name, Why::Evicted);
                    return true;
                }
            }
            if self.searched.is_some_and(|searched| now < searched + SEARCH) {
                return false;
            }
            self.searched = Some(now);
            let silent: Vec<_> = self
                .connections
                .iter()
                .map(|(key, connection)| Silent {
                    name: Name {
                        key: u32::try_from(key).expect("fewer connections than descriptors"),
                        generation: connection.generation,
                    },
                    source: connection.from.ip(),
                    accepted: connection.accepted,
                })
                .filter(|silent| self.is_silent(silent.name))
                .collect();
            self.victims = victims(&silent, self.connections.len(), self.core.settings.greeting_timeout, now).into();
            if self.victims.is_empty() {
                return false;
            }
        }
    }

    fn is_silent(&self, name: Name) -> bool {
        self.connections
            .get(name.key as usize)
            .is_some_and(|connection| connection.generation == name.generation && connection.phase == Phase::Greeting)
    }

    /// Takes those that the kernel has queued.
    pub(super) fn accept_queued(&mut self, index: usize) {
        while self.core.worker.gate.try_enter(self.core.now) {
            if !matches!(self.accept_one(index), Ok(true)) {
                self.core.worker.gate.leave();
                break;
            }
        }
    }

    /// Accepts no more. Those that the kernel has queued already are taken, since closing a listener would reset them.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for index in 0..self.listeners.len() {
            self.accept_queued(index);
        }
        for listening in self.listeners.drain(..) {
            self.core.unwatch_listener(&listening.socket);
            kept::let_go(&listening.socket);
        }
        (self.rests_until, self.full_until) = (None, None);
    }
}
