//! What one turn of a connection adds to the figures that each thread has for itself.

use evermq_mqtt::Packet;

use crate::session::Transmit;

/// Figures of a [`Traffic`].
pub(super) const FIGURES: usize = 13;

/// What has gone through, as far as clients are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Packets from clients, CONNECT included.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// PUBLISH packets from clients, by QoS.
    pub publishes_in: [u64; 3],
    /// PUBLISH packets to clients, by QoS.
    pub publishes_out: [u64; 3],
    /// Payload bytes of PUBLISH packets from clients.
    pub payload_in: u64,
    /// Payload bytes of PUBLISH packets to clients.
    pub payload_out: u64,
    /// Messages of clients that were accepted, wills included.
    pub messages: u64,
}

/// What one turn adds.
#[derive(Debug, Default)]
pub struct Tally(pub(super) Traffic);

impl Tally {
    /// Bytes came.
    pub fn read(&mut self, bytes: usize) {
        self.0.bytes_in += bytes as u64;
    }

    /// Bytes are to go.
    pub fn written(&mut self, bytes: usize) {
        self.0.bytes_out += bytes as u64;
    }

    /// A CONNECT came, and its CONNACK goes.
    pub fn connected(&mut self, connect: usize, connack: usize) {
        self.0.packets_in += 1;
        self.read(connect);
        self.written(connack);
    }

    /// A packet came.
    pub fn received(&mut self, packet: &Packet) {
        self.0.packets_in += 1;
        if let Packet::Publish(publish) = packet {
            self.0.publishes_in[publish.qos as usize] += 1;
            self.0.payload_in += publish.payload.len() as u64;
        }
    }

    /// A packet that is no message goes.
    pub fn sent(&mut self) {
        self.0.packets_out += 1;
    }

    /// A message goes.
    pub fn transmitted(&mut self, transmit: &Transmit) {
        self.0.packets_out += 1;
        if let Some(qos) = transmit.qos() {
            self.0.publishes_out[qos as usize] += 1;
            self.0.payload_out += transmit.payload_len() as u64;
        }
    }

    /// A client's message, or its will, was accepted.
    pub fn accepted(&mut self) {
        self.0.messages += 1;
    }

    /// What it adds.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.0
    }
}

impl Traffic {
    pub(super) fn figures(self) -> [u64; FIGURES] {
        let Self {
            bytes_in,
            bytes_out,
            packets_in,
            packets_out,
            publishes_in: [in0, in1, in2],
            publishes_out: [out0, out1, out2],
            payload_in,
            payload_out,
            messages,
        } = self;
        #[rustfmt::skip]
        let figures = [
            bytes_in, bytes_out, packets_in, packets_out, in0, in1, in2, out0, out1, out2, payload_in, payload_out, messages,
        ];
        figures
    }

    pub(super) fn of(figures: [u64; FIGURES]) -> Self {
        #[rustfmt::skip]
        let [
            bytes_in, bytes_out, packets_in, packets_out, in0, in1, in2, out0, out1, out2, payload_in, payload_out, messages,
        ] = figures;
        Self {
            bytes_in,
            bytes_out,
            packets_in,
            packets_out,
            publishes_in: [in0, in1, in2],
            publishes_out: [out0, out1, out2],
            payload_in,
            payload_out,
            messages,
        }
    }
}
