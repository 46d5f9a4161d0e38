//! The subscriber: QoS 1, a clean session, connected again at once whenever its connection ends.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use rumqttc::{Packet, PubAck, QoS, Subscribe};
use tokio::time::{Instant, interval, timeout_at};

use super::clients::{Shared, connect, connected, disconnected};
use super::events::Client;
use super::publisher::TOPIC;
use super::session::{Connection, Identity, PING_INTERVAL, SILENCE};
use crate::lab::clock;

/// The packet identifier of its one SUBSCRIBE.
const SUBSCRIBE_ID: u16 = 1;

/// Receives until the task is dropped.
pub(super) async fn run(identity: Identity, shared: Rc<Shared>) -> io::Result<Infallible> {
    loop {
        let connection = connect(&identity, "demo-subscriber").await;
        match serve(connection, &shared).await {
            Ok(never) => match never {},
            Err(error) => disconnected(Client::Subscriber, &error)?,
        }
    }
}

async fn serve(mut connection: Connection, shared: &Shared) -> io::Result<Infallible> {
    let mut subscribe = Subscribe::new(TOPIC, QoS::AtLeastOnce);
    subscribe.pkid = SUBSCRIBE_ID;
    connection.send(&Packet::Subscribe(subscribe)).await?;
    let mut ping = interval(PING_INTERVAL);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            received = timeout_at(heard + SILENCE, connection.receive()) => {
                let packet = received.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "silent"))??;
                heard = Instant::now();
                handle(&mut connection, shared, packet).await?;
            }
            _ = ping.tick() => connection.send(&Packet::PingReq).await?,
        }
    }
}

async fn handle(connection: &mut Connection, shared: &Shared, packet: Packet) -> io::Result<()> {
    let now = clock::monotonic();
    match packet {
        Packet::SubAck(_) => {
            shared.tally(|tally| tally.subscribed(now));
            connected(Client::Subscriber, &connection.broker)
        }
        Packet::Publish(publish) => {
            let number = std::str::from_utf8(&publish.payload).ok().and_then(|text| text.trim().parse().ok());
            let number = number.ok_or_else(|| io::Error::other("a message that is not the demo's"))?;
            shared.tally(|tally| {
                tally.heard(now);
                tally.received(number);
            });
            if publish.qos == QoS::AtLeastOnce {
                connection.send(&Packet::PubAck(PubAck::new(publish.pkid))).await?;
            }
            Ok(())
        }
        _ => {
            shared.tally(|tally| tally.heard(now));
            Ok(())
        }
    }
}
