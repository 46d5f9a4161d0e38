//! The relay between a client whose TLS ends here and its backend.

use std::os::fd::OwnedFd;

use super::super::connection::{Connection, Side, Way};
use super::super::core::Core;
use super::super::ended::Why;
use super::super::flow::{Outcome, Step};
use super::super::relaying::{Moved, TURN, send_held};
use super::super::socket;
use super::Secure;
use super::end::{Read, Scratch, push, read_plain};
use crate::tls::{Session, TlsFault};

/// Reads and writes of one direction in a turn: records may carry nothing that would count as bytes.
const STEPS: u32 = 64;

/// Moves what can be moved, both ways.
pub(in crate::engine) fn relay(connection: &mut Connection, core: &mut Core) -> (Moved, Moved) {
    let (Some(secure), Some(backend)) = (&mut connection.secure, &connection.backend) else {
        return Default::default();
    };
    let mut relay = Relay {
        secure,
        client: &connection.client,
        backend,
        to_backend: &mut connection.to_backend,
        to_client: &mut connection.to_client,
        scratch: &mut core.scratch,
        fault: None,
    };
    let before = (relay.to_backend.flow.bytes(), relay.to_client.flow.bytes());
    let (mut there, mut back) = (Moved::default(), Moved::default());
    relay.pump(Side::Client, &mut there);
    relay.pump(Side::Backend, &mut back);
    if let Some((side, fault)) = relay.fault.take() {
        tracing::debug!(client = %connection.from, %fault, ?side, "TLS ended the connection");
        connection.failed = connection.failed.or(Some(match side {
            Side::Client => Why::TlsFailed,
            Side::Backend => Why::BackendTlsFailed,
        }));
    }
    // After both: what one reads may have the other say something.
    there.bytes = connection.to_backend.flow.bytes() - before.0;
    back.bytes = connection.to_client.flow.bytes() - before.1;
    (there, back)
}

/// Both directions of one connection, and the room for a step.
struct Relay<'a> {
    secure: &'a mut Secure,
    client: &'a OwnedFd,
    backend: &'a OwnedFd,
    to_backend: &'a mut Way,
    to_client: &'a mut Way,
    scratch: &'a mut Scratch,
    /// The side whose TLS failed.
    fault: Option<(Side, TlsFault)>,
}

impl Relay<'_> {
    fn pump(&mut self, source: Side, moved: &mut Moved) {
        let before = self.way(source).flow.bytes();
        for steps in 0.. {
            let step = self.way(source).flow.step();
            if step != Step::Rest && (steps >= STEPS || self.way(source).flow.bytes() - before >= TURN) {
                moved.more = true;
                return;
            }
            match step {
                Step::Rest => return,
                // TLS is never spliced.
                Step::Receive | Step::Fill | Step::Drain => self.receive(source, moved),
                Step::Send => match source {
                    Side::Client => send_held(self.to_backend, self.backend, moved),
                    Side::Backend => send_held(self.to_client, self.client, moved),
                },
                Step::End => self.end(source, moved),
            }
        }
    }

    const fn way(&self, source: Side) -> &Way {
        match source {
            Side::Client => self.to_backend,
            Side::Backend => self.to_client,
        }
    }

    fn receive(&mut self, source: Side, moved: &mut Moved) {
        let scratch = &mut *self.scratch;
        let read = match (source, &mut self.secure.backend) {
            (Side::Client, _) => self.secure.client.read(self.client, &mut self.to_backend.flow, scratch, |_| {}),
            (Side::Backend, Some(end)) => end.read(self.backend, &mut self.to_client.flow, scratch, |_| {}),
            (Side::Backend, None) => read_plain(self.backend, &mut self.to_client.flow, scratch),
        };
        if !self.scratch.back.is_empty() {
            self.answer(source, moved);
        }
        match read {
            Read::Nothing(outcome) => moved.see_source(outcome),
            Read::Taken(received) => {
                self.pass_on(source, moved);
                if received.closed {
                    moved.see_source(Outcome::Ended);
                    self.way_mut(source).flow.handle_closed();
                }
            }
            Read::Broken(fault) => self.break_off(source, fault, moved),
        }
    }

    /// What came goes on to the other side.
    fn pass_on(&mut self, source: Side, moved: &mut Moved) {
        let Scratch { plain, sealed, .. } = &mut *self.scratch;
        if plain.is_empty() {
            return;
        }
        sealed.clear();
        let bytes = match (source, &mut self.secure.backend) {
            (Side::Client, None) => Ok(&*plain),
            (Side::Client, Some(end)) => end.session.send(plain.as_slice(), sealed).map(|()| &*sealed),
            (Side::Backend, _) => self.secure.client.session.send(plain.as_slice(), sealed).map(|()| &*sealed),
        };
        let (way, sink) = match source {
            Side::Client => (&mut *self.to_backend, self.backend),
            Side::Backend => (&mut *self.to_client, self.client),
        };
        match bytes {
            Ok(bytes) => moved.see_sink(push(way, sink, bytes.as_slice())),
            Err(fault) => {
                let sink = match source {
                    Side::Client => Side::Backend,
                    Side::Backend => Side::Client,
                };
                way.flow.give_up();
                moved.see_sink(Outcome::Failed);
                self.fault.get_or_insert((sink, fault));
            }
        }
    }

    /// What TLS has to say goes back to where it read from.
    fn answer(&mut self, source: Side, moved: &mut Moved) {
        let (way, socket) = match source {
            Side::Client => (&mut *self.to_client, self.client),
            Side::Backend => (&mut *self.to_backend, self.backend),
        };
        if push(way, socket, self.scratch.back.as_slice()) == Outcome::Failed {
            moved.see_source(Outcome::Failed);
        }
    }

    fn break_off(&mut self, source: Side, fault: TlsFault, moved: &mut Moved) {
        self.fault.get_or_insert((source, fault));
        self.way_mut(source).flow.handle_closed();
        moved.see_source(Outcome::Failed);
    }

    /// Nothing more goes to that source's other side: TLS says so, then TCP.
    fn end(&mut self, source: Side, moved: &mut Moved) {
        let out = &mut self.scratch.sealed;
        out.clear();
        match (source, &mut self.secure.backend) {
            (Side::Client, None) => {}
            (Side::Client, Some(end)) => end.session.close(out),
            (Side::Backend, _) => self.secure.client.session.close(out),
        }
        let (way, sink, last) = match source {
            Side::Client => (&mut *self.to_backend, self.backend, self.to_client.flow.is_done()),
            Side::Backend => (&mut *self.to_client, self.client, self.to_backend.flow.is_done()),
        };
        if !out.is_empty() {
            // It comes here again when that is gone.
            return moved.see_sink(push(way, sink, out.as_slice()));
        }
        way.flow.handle_ended();
        if !last {
            socket::finish(sink);
        }
    }

    const fn way_mut(&mut self, source: Side) -> &mut Way {
        match source {
            Side::Client => self.to_backend,
            Side::Backend => self.to_client,
        }
    }
}
