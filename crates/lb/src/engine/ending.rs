//! The end of a connection: everything that it had is given back here.

use evermq_config::lb::Mode;
use evermq_mqtt::ReasonCode;

use super::connection::{Connection, Held, Phase};
use super::core::{Core, Name};
use super::ended::{Ended, Why};
use super::secure::{self, Secure};
use super::socket;
use super::turn::Engine;
use crate::connect_packet;
use crate::pool::Lease;

impl Engine {
    /// Ends a connection.
    pub(super) fn end(&mut self, name: Name, why: Why) {
        if self.connection(name).is_none() {
            return;
        }
        let mut connection = self.connections.remove(name.key as usize);
        if let Some(spot) = connection.opening.as_mut().and_then(|opening| opening.spot.take()) {
            self.core.handshakes.leave(spot);
        }
        self.core.timers.clear(name.key);
        if why == Why::BackendDown
            && let Some(backend) = &connection.backend
        {
            // Nobody is there to take what is left; a frozen process must not find its clients still there.
            socket::reset_on_close(backend);
        }
        let worker = &self.core.worker;
        match why {
            Why::NoBackend | Why::Shortage | Why::QueueFull | Why::QueueTimeout => worker.count_turned_away(),
            Why::SourceLimit => worker.count_over_source_limit(),
            _ => {}
        }
        say_last_words(&mut connection, &mut self.core, why);
        let worker = &self.core.worker;
        if let Some(ticket) = connection.opening.as_ref().and_then(|opening| opening.ticket) {
            self.core.lobby.leave(ticket);
        }
        if let (Some(clients), Some(number)) = (worker.clients(), connection.number) {
            clients.leave(number.get() - 1);
        }
        let front = usize::from(connection.listener);
        let details = connection.details.as_deref();
        let client_id = details.and_then(|details| details.client_id.as_deref()).map(String::from_utf8_lossy);
        let (tls, identity) = connection.secure.as_deref().and_then(Secure::summary).unzip();
        let identity = identity.flatten();
        self.core.fronts[front].figures.count_ended(worker.index);
        worker.sink.ended(&Ended {
            id: connection.id,
            listener: front,
            listener_name: &self.core.fronts[front].name,
            mode: self.core.fronts[front].mode,
            client: connection.from,
            sni: details.and_then(|details| details.sni.as_deref()),
            client_id: client_id.as_deref(),
            backend: connection.lease.as_ref().map(Lease::member),
            why,
            to_backend: connection.to_backend.flow.bytes(),
            to_client: connection.to_client.flow.bytes(),
            accepted: connection.accepted,
            ended: self.core.now,
            greeted: connection.greeted.elapsed(),
            placed: connection.placed.elapsed(),
            connected: connection.connected.elapsed(),
            handshaken: connection.handshaken.elapsed(),
            tls_version: tls.map(|tls| tls.version),
            tls_resumed: tls.is_some_and(|tls| tls.resumed),
            common_name: identity.as_ref().and_then(|identity| identity.cn.as_deref()),
        });
        let Connection { to_backend, to_client, client, backend, lease, place, .. } = connection;
        for held in [to_backend.held, to_client.held] {
            if let Held::Pipe(pipe) = held {
                self.core.pipes.give_back(*pipe);
            }
        }
        // The client first: it is to know at once.
        drop(client);
        drop((backend, lease, place));
        self.core.worker.gate.leave();
    }
}

/// What the client hears before its connection is closed.
fn say_last_words(connection: &mut Connection, core: &mut Core, why: Why) {
    let mode = core.fronts[usize::from(connection.listener)].mode;
    let refusal = refusal_of(connection, mode, why);
    if connection.secure.is_some() {
        secure::say_goodbye(connection, &mut core.scratch, refusal.as_deref());
    } else if let Some(refusal) = refusal {
        socket::transmit(&connection.client, &refusal);
    } else if matches!(why, Why::QueueFull | Why::SourceLimit) {
        // In a storm there is no time for farewells, and no room for sockets that wait for the last of them.
        socket::reset_on_close(&connection.client);
    }
}

/// What a client hears that has said in MQTT who it is, and gets no broker: that it may come again.
fn refusal_of(connection: &Connection, mode: Mode, why: Why) -> Option<Vec<u8>> {
    let version = connection.details.as_ref()?.version?;
    if !mode.sees_mqtt() || connection.phase == Phase::Relaying {
        return None;
    }
    let reason = match why {
        Why::NoBackend | Why::Shortage | Why::BackendDown | Why::Stopping => ReasonCode::ServerUnavailable,
        Why::QueueFull | Why::QueueTimeout => ReasonCode::ServerBusy,
        _ => return None,
    };
    connect_packet::refuse(version, reason)
}
