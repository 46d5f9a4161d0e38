//! Messages of a publisher with a lasting session, each until it is complete, over as many connections as that takes.

use std::collections::VecDeque;

use evermq_mqtt::packet::Ack;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Version};

use crate::client::id;
use crate::history::Site;
use crate::history::wire::{Came, Line, lasting};

pub(super) struct Exchanges<'a> {
    site: &'a Site,
    name: &'static str,
    version: Version,
    line: Option<Line>,
    is_known: bool,
    open: VecDeque<Exchange>,
    next_id: u16,
}

struct Exchange {
    id: PacketId,
    publish: Publish,
    /// What its end is reported under.
    serial: Option<usize>,
    /// PUBREC has come (QoS 2).
    released: bool,
}

impl<'a> Exchanges<'a> {
    pub(super) fn new(site: &'a Site, name: &'static str, version: Version) -> Self {
        Self { site, name, version, line: None, is_known: false, open: VecDeque::new(), next_id: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Begins an exchange. Few identifiers, so that each is used again soon.
    pub(super) fn begin(&mut self, publish: Publish, serial: Option<usize>) {
        let packet_id = loop {
            self.next_id = self.next_id % 30 + 1;
            let packet_id = id(self.next_id);
            if self.open.iter().all(|exchange| exchange.id != packet_id) {
                break packet_id;
            }
        };
        let publish = Publish { packet_id: Some(packet_id), ..publish };
        self.open.push_back(Exchange { id: packet_id, publish: publish.clone(), serial, released: false });
        // Over a new connection everything is sent.
        if let Some(line) = &mut self.line
            && !line.send(&Packet::Publish(publish))
        {
            self.line = None;
        }
    }

    /// Goes on with what is open; what was acknowledged, and how.
    pub(super) fn go_on(&mut self) -> Vec<(usize, ReasonCode)> {
        if self.line.is_none() {
            self.connect();
        }
        let Some(line) = &mut self.line else { return Vec::new() };
        match line.look() {
            Came::Nothing => Vec::new(),
            Came::End => {
                self.line = None;
                Vec::new()
            }
            Came::Packet(packet) => self.handle(&packet).into_iter().collect(),
        }
    }

    fn connect(&mut self) {
        let (mut line, connack) = Line::open(self.site, &lasting(self.name, self.version));
        assert!(connack.session_present || !self.is_known, "the session of {} was forgotten", self.name);
        self.is_known = true;
        // [MQTT-4.4.0-1]: in the order in which they were sent.
        let taken = self.open.iter().all(|exchange| {
            line.send(&match exchange.released {
                true => Packet::PubRel(ack(exchange.id)),
                false => Packet::Publish(Publish { dup: true, ..exchange.publish.clone() }),
            })
        });
        self.line = taken.then_some(line);
    }

    fn handle(&mut self, packet: &Packet) -> Option<(usize, ReasonCode)> {
        let (Packet::PubAck(got) | Packet::PubRec(got) | Packet::PubComp(got)) = packet else {
            panic!("{}: {packet:?}", self.name)
        };
        let index = self.open.iter().position(|exchange| exchange.id == got.packet_id)?;
        let exchange = &mut self.open[index];
        let report = exchange.serial.map(|serial| (serial, got.reason));
        match (packet, exchange.publish.qos, exchange.released) {
            (Packet::PubAck(_), QoS::AtLeastOnce, _) => drop(self.open.remove(index)),
            (Packet::PubRec(_), QoS::ExactlyOnce, _) if got.reason.is_error() => drop(self.open.remove(index)),
            (Packet::PubRec(_), QoS::ExactlyOnce, was_released) => {
                exchange.released = true;
                let line = self.line.as_mut()?;
                if !line.send(&Packet::PubRel(ack(got.packet_id))) {
                    self.line = None;
                }
                return report.filter(|_| !was_released);
            }
            (Packet::PubComp(_), QoS::ExactlyOnce, true) => {
                self.open.remove(index);
                return None;
            }
            _ => panic!("{}: {packet:?} for {:?}", self.name, exchange.publish.qos),
        }
        report
    }
}

fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: None }
}
