//! Connections that leave for another process of the program, or come from one, as they are: see [`crate::upgrade`].
//!
//! Only those that relay can move, and only where the lb does not speak TLS itself. What is in flight stays in the kernel: the
//! sockets are the same, and epoll tells of a socket that is new to it what there is to be read.

use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use super::connection::{Bytes, Connection, Details, Fate, Held, Mark, Phase, Side, Turns, Way};
use super::core::Name;
use super::ended::Why;
use super::flow::{Flow, Standing};
use super::listener::{ListenerLost, Listening};
use super::timers::TICK;
use super::turn::Engine;
use super::{relaying, socket};
use crate::pool::Lease;
use crate::upgrade::message::{Ages, Direction, DirectionState, Record};
use crate::upgrade::parcel::Carried;

/// What a worker has given away.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    /// Not the worker's any more.
    pub(crate) connections: Vec<Carried>,
    /// Connections that it still has.
    pub(crate) left: usize,
}

/// A connection that comes, with its place at its backend.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) carried: Carried,
    pub(crate) lease: Lease,
    pub(crate) listener: u16,
    /// Another process would not have it: it is not given away again.
    pub(crate) stays: bool,
}

impl Engine {
    /// Accepts nobody, or again.
    pub(super) fn hold(&mut self, hold: bool) {
        self.held = hold;
        if hold {
            let paused: std::io::Result<()> =
                self.listeners.iter_mut().try_for_each(|listening| listening.pause(true, &self.core));
            if let Err(error) = paused {
                self.lose_listeners(ListenerLost::from(error));
            }
        } else {
            // This process goes on, and the next one may take what that one would not.
            self.connections.iter_mut().for_each(|(_, connection)| connection.stays = false);
            self.resume();
        }
    }

    /// The listeners once more.
    pub(super) fn copies(&self) -> Vec<(u16, OwnedFd)> {
        let copy = |listening: &Listening| Some((listening.front, listening.socket.as_fd().try_clone_to_owned().ok()?));
        self.listeners.iter().filter_map(copy).collect()
    }

    /// Closes so many of the connections that relay and cannot be given away.
    pub(super) fn shed(&mut self, count: usize) {
        let names: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.phase == Phase::Relaying && !self.is_movable(connection))
            .map(|(key, connection)| name(key, connection))
            .take(count)
            .collect();
        names.into_iter().for_each(|name| self.end(name, Why::Stopping));
    }

    /// Closes this process's copies of the listeners.
    pub(super) fn release(&mut self) {
        for listening in self.listeners.drain(..) {
            self.core.unwatch_listener(&listening.socket);
        }
        self.rests_until = None;
    }

    /// Gives away at most so many connections.
    pub(super) fn export(&mut self, most: usize) -> Exported {
        let names: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| self.is_movable(connection))
            .map(|(key, connection)| name(key, connection))
            .take(most)
            .collect();
        let connections = names.into_iter().filter_map(|name| self.export_one(name)).collect();
        Exported { connections, left: self.connections.len() }
    }

    fn is_movable(&self, connection: &Connection) -> bool {
        connection.phase == Phase::Relaying
            && !connection.stays
            && connection.secure.is_none()
            && connection.backend.is_some()
            && connection.lease.as_ref().is_some_and(|lease| !lease.is_stale())
            && !self.core.fronts[usize::from(connection.listener)].mode.terminates()
    }

    fn export_one(&mut self, name: Name) -> Option<Carried> {
        let connection = self.connections.get_mut(name.key as usize)?;
        let (to_backend, to_client) = match (
            take_held(&mut connection.to_backend),
            take_held(&mut connection.to_client),
        ) {
            (Ok(to_backend), Ok(to_client)) => (to_backend, to_client),
            (there, back) => {
                tracing::error!(client = %connection.from, there = ?there.err(), back = ?back.err(), "a pipe cannot be read");
                self.end(name, Why::Shortage);
                return None;
            }
        };
        let now = self.core.now;
        let silent = TICK * self.core.tick().wrapping_sub(self.connections[name.key as usize].active);
        let connection = self.connections.remove(name.key as usize);
        self.core.timers.clear(name.key);
        let front = &self.core.fronts[usize::from(connection.listener)];
        let lease = connection.lease?;
        let (client, backend) = (connection.client, connection.backend?);
        self.core.unwatch(&client);
        self.core.unwatch(&backend);
        let details = connection.details.as_deref();
        let local = socket::local_address(&client).unwrap_or(front.address);
        let record = Record {
            listener: front.name.to_string(),
            mode: front.mode.name().to_owned(),
            client: connection.from,
            local,
            backend: lease.member().name().to_owned(),
            backend_address: lease.member().address(),
            id: connection.id,
            to_backend: direction(&connection.to_backend.flow),
            to_client: direction(&connection.to_client.flow),
            sni: details.and_then(|details| details.sni.as_deref()).map(str::to_owned),
            client_id: details.and_then(|details| details.client_id.as_deref()).map(<[u8]>::to_vec),
            failed: connection.failed.map(|why| why.name().to_owned()),
            first_ended: connection.first_ended.map(|side| side_name(side).to_owned()),
            handshake_turns: Some(connection.turns.count()),
            ages: Ages {
                accepted: micros(now.saturating_duration_since(connection.accepted)),
                greeted: connection.greeted.elapsed().map(micros),
                placed: connection.placed.elapsed().map(micros),
                connected: connection.connected.elapsed().map(micros),
                handshaken: connection.handshaken.elapsed().map(micros),
                active: micros(silent),
            },
        };
        for held in [connection.to_backend.held, connection.to_client.held] {
            if let Held::Pipe(pipe) = held {
                self.core.pipes.give_back(*pipe);
            }
        }
        let worker = &self.core.worker;
        if let (Some(clients), Some(number)) = (worker.clients(), connection.number) {
            clients.leave(number.get() - 1);
        }
        drop(lease);
        worker.gate.leave();
        Some(Carried { record, client, backend, to_backend, to_client })
    }

    /// Serves connections that come from another process, or come back.
    pub(super) fn import(&mut self, imports: Vec<Import>) {
        for import in imports {
            self.import_one(import);
        }
    }

    fn import_one(&mut self, import: Import) {
        let Import { carried, lease, listener, stays } = import;
        let Carried { record, client, backend, to_backend, to_client } = carried;
        let name = self.next_name();
        let now = self.core.now;
        let accepted = now.checked_sub(Duration::from_micros(record.ages.accepted)).unwrap_or(now);
        let ticks = Duration::from_micros(record.ages.active).as_micros() / TICK.as_micros();
        let silent = u32::try_from(ticks).unwrap_or(u32::MAX / 2);
        let mut connection = Connection::new(client, record.client, listener, record.id, name.generation, accepted);
        connection.backend = Some(backend);
        connection.to_backend = way(record.to_backend, to_backend);
        connection.to_client = way(record.to_client, to_client);
        connection.phase = Phase::Relaying;
        connection.stays = stays;
        connection.active = self.core.tick().wrapping_sub(silent);
        connection.greeted = mark(accepted, record.ages.greeted);
        connection.placed = mark(accepted, record.ages.placed);
        connection.connected = mark(accepted, record.ages.connected);
        connection.handshaken = mark(accepted, record.ages.handshaken);
        connection.turns = Turns::of(record.handshake_turns);
        connection.failed = record.failed.as_deref().and_then(Why::of_name);
        connection.first_ended = record.first_ended.as_deref().and_then(side_of);
        if record.sni.is_some() || record.client_id.is_some() {
            connection.details = Some(Box::new(Details {
                sni: record.sni.map(String::into_boxed_str),
                client_id: record.client_id.map(Vec::into_boxed_slice),
                version: None,
            }));
        }
        // It is in already, whatever the limits of its address are.
        connection.place = self.core.worker.sources.enter(record.client.ip(), now).ok();
        let stale = lease.is_stale();
        connection.lease = Some(lease);
        self.core.worker.gate.enter_anyway();
        self.core.fronts[usize::from(listener)].figures.count_accepted(self.core.worker.index);
        if let Some(clients) = self.core.worker.clients() {
            let number = clients.join(record.client, record.local);
            connection.number = number.and_then(|number| NonZeroU32::new(number + 1));
        }
        let watched = self.core.watch_client(&connection.client, name).and_then(|()| match &connection.backend {
            Some(backend) => self.core.watch_backend(backend, name),
            None => Ok(()),
        });
        let key = self.connections.insert(connection);
        debug_assert_eq!(key, name.key as usize, "the vacant key was asked for");
        if let Err(error) = watched {
            tracing::warn!(%error, "epoll does not take a connection that was handed over");
            return self.end(name, Why::Shortage);
        }
        if stale {
            return self.end(name, Why::BackendDown);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let fate = match relaying::time_out(connection, name, &mut self.core) {
            // What it keeps goes first.
            Fate::Waits => relaying::advance(connection, name, &mut self.core),
            idle => idle,
        };
        self.settle(name, fate);
    }
}

fn name(key: usize, connection: &Connection) -> Name {
    let key = u32::try_from(key).expect("fewer connections than descriptors");
    Name { key, generation: connection.generation }
}

/// What is held of a direction, in bytes.
fn take_held(way: &mut Way) -> nix::Result<Vec<u8>> {
    match &mut way.held {
        Held::Nothing => Ok(Vec::new()),
        Held::Bytes(held) => Ok(held.bytes[held.gone..].to_vec()),
        Held::Pipe(pipe) => pipe.take_out(),
    }
}

fn way(direction: Direction, kept: Vec<u8>) -> Way {
    let standing = match direction.state {
        DirectionState::Open => Standing::Open,
        DirectionState::Ending => Standing::Ending,
        DirectionState::Done => Standing::Done,
    };
    let flow = Flow::resumed(direction.bytes, standing, !kept.is_empty());
    let held = if kept.is_empty() {
        Held::Nothing
    } else {
        Held::Bytes(Box::new(Bytes { bytes: kept.into_boxed_slice(), gone: 0 }))
    };
    Way { flow, held }
}

fn direction(flow: &Flow) -> Direction {
    let state = match flow.standing() {
        Standing::Open => DirectionState::Open,
        Standing::Ending => DirectionState::Ending,
        Standing::Done => DirectionState::Done,
    };
    Direction { state, bytes: flow.bytes(), kept: 0 }
}

const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Backend => "backend",
    }
}

fn side_of(name: &str) -> Option<Side> {
    [Side::Client, Side::Backend].into_iter().find(|side| side_name(*side) == name)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn mark(accepted: Instant, micros: Option<u64>) -> Mark {
    micros.map_or_else(Mark::default, |micros| Mark::at(accepted, accepted + Duration::from_micros(micros)))
}
