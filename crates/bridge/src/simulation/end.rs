//! The origin's end of its connection.

use std::num::NonZeroU64;
use std::time::Instant;

use bytes::BytesMut;
use evermq_mqtt::Text;

use super::network::{Arrival, ConnectionId, Network};
use super::random::Random;
use crate::batch::Receiver;
use crate::directions::{Directions, GroupId};
use crate::frame::{self, Claim, Frame};
use crate::link::Link;
use crate::message::Publisher;

/// What the origin says of a client whenever a link comes up.
pub(super) fn claim() -> Claim {
    Claim { time: 1, clean_start: true, client_id: Text::new("client").unwrap(), user: None }
}

/// Where the origin wants that message to go, always.
pub(super) fn directions(number: u64) -> Option<Directions> {
    (number % 3 == 1).then(|| Directions::new(GroupId([7; 16]), &format!("broker{number}")))
}

/// Who published that message, always.
pub(super) fn publisher(number: u64) -> Option<Publisher> {
    NonZeroU64::new(number / 2).map(Publisher)
}

/// To the receiver, which understands everything.
pub(super) fn receiver(max_body: u32) -> Receiver<'static> {
    Receiver { name: "receiver", max_body, is_directed: true, knows_publishers: true }
}

/// What it tells whenever a link comes up.
pub(super) fn tell(out: &mut BytesMut) {
    frame::encode(&Frame::Claim(claim()), out);
    frame::encode(&Frame::Groups { is_complete: true }, out);
}

/// The connection, if there is one, and what has come of a frame. By default there is none.
#[derive(Default)]
pub(super) struct End {
    connection: Option<ConnectionId>,
    input: BytesMut,
}

impl End {
    /// Gives `link` what has arrived.
    pub(super) fn receive(&mut self, link: &mut Link, network: &mut Network, random: &mut Random, now: Instant) {
        let Some(id) = self.connection else { return };
        match network.receive_at_origin(id, random, now) {
            Arrival::Nothing => {}
            Arrival::End => link.handle_lost("connection has ended".into(), false, now),
            Arrival::Bytes(bytes) => {
                link.handle_bytes(now);
                self.input.extend_from_slice(&bytes);
                while let Some(frame) = frame::decode(&mut self.input, 1024).unwrap() {
                    assert!(!matches!(frame, Frame::Error { .. }), "the receiver says {frame:?}");
                    link.handle_frame(frame, now);
                }
            }
        }
    }

    pub(super) fn connect(&mut self, link: &mut Link, network: &mut Network, now: Instant) {
        self.connection = network.connect(now);
        self.input.clear();
        match self.connection {
            Some(_) => link.handle_opened(now),
            None => link.handle_lost("no route".into(), false, now),
        }
    }

    pub(super) fn send(&self, output: &BytesMut, network: &mut Network, random: &mut Random, now: Instant) {
        if let Some(id) = self.connection {
            network.send_to_receiver(id, output, random, now);
        }
    }

    /// Sends what is there and closes.
    pub(super) fn close(&mut self, output: &mut BytesMut, network: &mut Network, random: &mut Random, now: Instant) {
        if let Some(id) = self.connection.take() {
            network.send_to_receiver(id, output, random, now);
            network.origin_closes(id);
        }
        output.clear();
    }
}
