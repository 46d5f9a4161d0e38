//! What operators and a reload want of a worker: who is connected, close some, listen elsewhere.
//!
//! Each is done in one turn, so each is small: a look is at a bounded number of connections, and whoever wants more asks again.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use evermq_daemon::kept;
use mio::Token;
use tokio::sync::oneshot;

use super::connection::{Connection, Phase};
use super::core::Name;
use super::ended::Why;
use super::listener::Listening;
use super::socket;
use super::timers::TICK;
use super::turn::{Engine, LISTENERS};
use crate::view::Row;

/// Places looked at in one turn.
pub(crate) const SLICE: usize = 256;

/// A part of a worker's connections.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) rows: Vec<Row>,
    /// Where to go on; none at the end.
    pub(crate) next: Option<usize>,
}

/// A look at connections.
#[derive(Debug)]
pub(crate) struct Look {
    /// The place to begin at: 0, then as [`Slice::next`] says.
    pub(crate) from: usize,
    pub(crate) reply: oneshot::Sender<Slice>,
}

/// Something to be done with connections.
#[derive(Debug)]
pub(crate) struct Steer {
    pub(crate) targets: Vec<Target>,
    /// Close them at once; else they are about to end, and this is why.
    pub(crate) close: bool,
    /// The numbers of those that were there.
    pub(crate) reply: oneshot::Sender<Vec<u64>>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Its place, as in [`Row::key`].
    pub(crate) key: u32,
    /// Its number: the place may be another one's by now.
    pub(crate) id: u64,
    pub(crate) why: Why,
}

impl Engine {
    pub(super) fn look(&self, look: Look) {
        let end = self.highest();
        let until = look.from.saturating_add(SLICE).min(end);
        let row = |key: usize| {
            let connection = self.connections.get(key)?;
            Some(self.row(u32::try_from(key).ok()?, connection))
        };
        let rows = (look.from..until).filter_map(row).collect();
        // Whoever asked may have left.
        let _ = look.reply.send(Slice { rows, next: (until < end).then_some(until) });
    }

    fn row(&self, key: u32, connection: &Connection) -> Row {
        let front = &self.core.fronts[usize::from(connection.listener)];
        let details = connection.details.as_deref();
        let client_id = details.and_then(|details| details.client_id.as_deref());
        let member = connection.lease.as_ref().map(crate::pool::Lease::member);
        Row {
            key,
            id: connection.id,
            client: connection.from,
            listener: Arc::clone(&front.name),
            mode: front.mode,
            phase: connection.phase.name(),
            sni: details.and_then(|details| details.sni.clone()),
            client_id: client_id.map(|id| String::from_utf8_lossy(id).into()),
            backend: member.map(|member| member.name().into()),
            backend_local: connection.backend.as_ref().and_then(socket::local_address),
            bytes_in: connection.to_backend.flow.bytes(),
            bytes_out: connection.to_client.flow.bytes(),
            accepted: connection.accepted,
            active: self.last_byte(connection),
        }
    }

    fn last_byte(&self, connection: &Connection) -> Instant {
        match connection.phase {
            Phase::Relaying => {
                let silent = TICK * self.core.tick().wrapping_sub(connection.active);
                self.core.now.checked_sub(silent).map_or(connection.accepted, |at| at.max(connection.accepted))
            }
            _ => connection.accepted,
        }
    }

    pub(super) fn steer(&mut self, steer: Steer) {
        let mut there = Vec::with_capacity(steer.targets.len());
        for Target { key, id, why } in steer.targets {
            let place = self.connections.get_mut(key as usize);
            let Some(connection) = place.filter(|connection| connection.id == id) else { continue };
            there.push(id);
            if steer.close {
                let name = Name { key, generation: connection.generation };
                self.end(name, why);
            } else {
                // Whichever side closes first: it was our doing.
                connection.failed = connection.failed.or(Some(why));
            }
        }
        // Whoever asked may have left.
        let _ = steer.reply.send(there);
    }

    /// Listens at one more address, the one of that number.
    pub(super) fn listen(&mut self, socket: TcpListener, front: u16) {
        if self.stopping {
            return;
        }
        match Listening::new(socket, front, Token(LISTENERS - usize::from(front)), &self.core) {
            Ok(listening) => {
                kept::keep(&listening.socket);
                self.listeners.push(listening);
            }
            Err(error) => self.lose_listeners(error.into()),
        }
    }

    /// What this worker listens on is to outlive the process.
    pub(super) fn keep(&self) {
        self.listeners.iter().for_each(|listening| kept::keep(&listening.socket));
    }

    /// Listens there no more. Those that the kernel has queued already are taken.
    pub(super) fn unlisten(&mut self, front: u16) {
        while let Some(index) = self.listeners.iter().position(|listening| listening.front == front) {
            self.accept_queued(index);
            let listening = self.listeners.remove(index);
            self.core.unwatch_listener(&listening.socket);
            kept::let_go(&listening.socket);
        }
    }
}
