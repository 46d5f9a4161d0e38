//! The publisher: QoS 1 at a steady rate, whatever happens to its connection. It sends again what was not acknowledged.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rumqttc::{Packet, Publish, QoS};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::clients::{Shared, connect, connected, disconnected};
use super::events::Client;
use super::session::{Connection, Identity, PING_INTERVAL, SILENCE};
use crate::lab::clock;

/// The topic of every message.
pub(super) const TOPIC: &str = "demo/line/1";
/// Length of a payload: a number, padded.
pub(super) const PAYLOAD: usize = 64;
/// Unacknowledged messages, as many as EverMQ's default `max_inflight`.
const WINDOW: usize = 100;

/// The messages on their way: packet identifier and number.
#[derive(Default)]
struct Window {
    last_id: u16,
    /// In the order in which they were sent first, by number; the packet identifier stays with the message [MQTT-4.4.0-1].
    inflight: BTreeMap<usize, u16>,
}

/// Publishes until the task is dropped.
pub(super) async fn run(identity: Identity, shared: Rc<Shared>, rate: u32) -> io::Result<Infallible> {
    let mut window = Window::default();
    let mut schedule = Schedule { started: Instant::now(), made: 0, rate };
    let mut is_first = true;
    loop {
        let connection = connect(&identity, "demo-publisher").await;
        connected(Client::Publisher, &connection.broker)?;
        if is_first {
            schedule.started = Instant::now();
            is_first = false;
        }
        match serve(connection, &shared, &mut window, &mut schedule).await {
            Ok(never) => match never {},
            Err(error) => disconnected(Client::Publisher, &error)?,
        }
    }
}

async fn serve(
    mut connection: Connection,
    shared: &Shared,
    window: &mut Window,
    schedule: &mut Schedule,
) -> io::Result<Infallible> {
    for (&number, &id) in &window.inflight {
        connection.send(&publish(number, id, true)).await?;
    }
    let mut tick = interval(schedule.interval());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ping = interval(PING_INTERVAL);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            received = timeout_at(heard + SILENCE, connection.receive()) => {
                let packet = received.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "silent"))??;
                heard = Instant::now();
                if let Packet::PubAck(ack) = packet
                    && let Some(number) = window.acknowledge(ack.pkid)
                {
                    shared.tally(|tally| tally.acknowledged(number, clock::monotonic()));
                }
            }
            _ = tick.tick() => {
                if shared.is_finishing() {
                    continue;
                }
                // After a reconnect there is more than one message due.
                while window.inflight.len() < WINDOW && schedule.is_due() {
                    schedule.made += 1;
                    let number = shared.tally(|tally| tally.sent(clock::monotonic()));
                    let id = window.add(number);
                    connection.send(&publish(number, id, false)).await?;
                }
            }
            _ = ping.tick() => connection.send(&Packet::PingReq).await?,
        }
    }
}

fn publish(number: usize, id: u16, dup: bool) -> Packet {
    let mut publish = Publish::new(TOPIC, QoS::AtLeastOnce, format!("{number:>PAYLOAD$}"));
    publish.pkid = id;
    publish.dup = dup;
    Packet::Publish(publish)
}

impl Window {
    fn add(&mut self, number: usize) -> u16 {
        // Identifiers are reused long after the window has moved on; 0 is none [MQTT-2.3.1-1].
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.inflight.insert(number, self.last_id);
        self.last_id
    }

    fn acknowledge(&mut self, id: u16) -> Option<usize> {
        let number = self.inflight.iter().find(|(_, inflight)| **inflight == id).map(|(number, _)| *number)?;
        self.inflight.remove(&number);
        Some(number)
    }
}

/// When messages are due: `rate` of them each second from the start on, with or without a connection.
struct Schedule {
    started: Instant,
    made: u64,
    rate: u32,
}

impl Schedule {
    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate.max(1)
    }

    fn is_due(&self) -> bool {
        let due = self.started.elapsed().as_secs_f64() * f64::from(self.rate);
        (self.made as f64) < due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_stays_with_its_message_until_it_is_acknowledged() {
        let mut window = Window { last_id: u16::MAX - 1, ..Window::default() };
        assert_eq!([window.add(0), window.add(1), window.add(2)], [u16::MAX, 1, 2]);
        assert_eq!(window.acknowledge(1), Some(1));
        assert_eq!(window.acknowledge(1), None);
        assert_eq!(window.inflight.into_iter().collect::<Vec<_>>(), [(0, u16::MAX), (2, 2)]);
    }

    #[test]
    fn a_message_that_is_sent_again_says_so() {
        let Packet::Publish(again) = publish(7, 3, true) else { panic!("not a PUBLISH") };
        assert!(again.dup);
        assert_eq!((again.pkid, again.payload.len()), (3, PAYLOAD));
        assert_eq!(std::str::from_utf8(&again.payload).ok().map(str::trim), Some("7"));
    }
}
