//! What other threads have ordered, and connections that are closed because of it, a portion in each turn.

use std::sync::Arc;

use super::connecting;
use super::connection::Phase;
use super::core::Name;
use super::ended::Why;
use super::inbox::Order;
use super::turn::Engine;
use crate::pool::{Lease, Pool};

/// Connections closed in one turn.
const PORTION: usize = 256;

/// Which connections are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Those whose backend went down.
    Stale,
    /// All.
    All,
}

impl Engine {
    pub(super) fn take_orders(&mut self) {
        for order in self.core.worker.inbox.take() {
            match order {
                Order::Sweep => self.begin_sweep(Sweep::Stale),
                Order::Room => self.resume(),
                Order::MakeRoom => {
                    self.make_room();
                }
                Order::Hold(reply) => {
                    self.hold(true);
                    // Whoever asked has gone; the next order undoes it.
                    let _ = reply.send(());
                }
                Order::Copies(reply) => {
                    let _ = reply.send(self.copies());
                }
                Order::Unhold => self.hold(false),
                Order::Shed(count) => self.shed(count),
                Order::Release => self.release(),
                Order::Export(most, reply) => {
                    // Nobody to take them: they stay.
                    if !reply.is_closed() {
                        let exported = self.export(most);
                        if let Err(exported) = reply.send(exported) {
                            tracing::error!(connections = exported.connections.len(), "connections are lost");
                        }
                    }
                }
                Order::Import(imports) => self.import(imports),
                Order::Settings(settings) => {
                    self.core.handshakes.set_limit(settings.handshakes);
                    self.core.lobby.set_bounds(settings.queue.size, settings.queue.timeout);
                    self.core.settings = settings;
                }
                Order::Pool(pool) => self.change_pool(pool),
                Order::Stop => self.stop(),
                Order::Look(look) => self.look(look),
                Order::Steer(steer) => self.steer(steer),
                Order::Fronts(fronts) => self.core.fronts = fronts,
                Order::Listen(socket, front) => self.listen(socket, front),
                Order::Keep => self.keep(),
                Order::Unlisten(front) => self.unlisten(front),
                Order::Close => {
                    self.stop();
                    self.closing = true;
                    self.begin_sweep(Sweep::All);
                }
            }
        }
    }

    /// Other backends from now on. What was tried is counted by places in the old pool.
    fn change_pool(&mut self, pool: Arc<Pool>) {
        self.core.pool = pool;
        for (_, connection) in &mut self.connections {
            if let Some(opening) = &mut connection.opening {
                opening.tried.clear();
                opening.refused.clear();
            }
        }
    }

    fn begin_sweep(&mut self, sweep: Sweep) {
        let sweep = if self.closing { Sweep::All } else { sweep };
        self.sweep = Some((sweep, 0));
    }

    /// Closes a portion of those that are to be closed.
    pub(super) fn work_off_sweep(&mut self) {
        let Some((sweep, from)) = self.sweep.take() else { return };
        let mut closed = 0;
        let mut key = from;
        let end = self.connections.capacity().min(self.highest());
        while key < end {
            if closed == PORTION {
                self.sweep = Some((sweep, key));
                return;
            }
            if let Some(connection) = self.connections.get(key) {
                let name = Name {
                    key: u32::try_from(key).expect("fewer connections than descriptors"),
                    generation: connection.generation,
                };
                let stale = connection.lease.as_ref().is_some_and(Lease::is_stale);
                match sweep {
                    Sweep::Stale if stale => {
                        self.lose(name);
                        closed += 1;
                    }
                    Sweep::All => {
                        let why = if stale { connection.why_stale() } else { Why::Stopping };
                        self.end(name, why);
                        closed += 1;
                    }
                    Sweep::Stale => {}
                }
            }
            key += 1;
        }
    }

    /// The backend of that connection went down.
    fn lose(&mut self, name: Name) {
        let Some(connection) = self.connections.get_mut(name.key as usize) else { return };
        match connection.phase {
            Phase::Connecting | Phase::Securing => {
                let fate = connecting::lose(connection, name, &mut self.core);
                self.settle(name, fate);
            }
            Phase::Greeting | Phase::Waiting | Phase::Pausing | Phase::Relaying => {
                let why = connection.why_stale();
                self.end(name, why);
            }
        }
    }
}
