//! Numbered messages from publishers to subscribers: what arrives, how often, in which order, how fast.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Args;
use evermq_mqtt::packet::{Ack, Packet, QoS};
use evermq_mqtt::{ReasonCode, Text, TopicName};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::connection::{self, Receiver, Sender};
use crate::tls::{Connector, TlsArgs};

/// Bytes that gather before a publisher writes.
const BATCH: usize = 16 * 1024;
/// Publisher number and message number at the head of each payload.
const HEADER: usize = 12;

#[derive(Debug, Clone, Args)]
pub(crate) struct FlowArgs {
    /// Where publishers connect
    #[arg(long)]
    publish: SocketAddr,
    /// Where subscribers connect
    #[arg(long)]
    subscribe: SocketAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Quality of service, both ways
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// Messages of each publisher
    #[arg(long, default_value_t = 100_000)]
    messages: u32,
    /// Payload bytes
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Publishers
    #[arg(long, default_value_t = 1)]
    publishers: u32,
    /// Subscribers, each of which gets every message
    #[arg(long, default_value_t = 1)]
    subscribers: u32,
    /// Unacknowledged QoS 1 messages of one publisher
    #[arg(long, default_value_t = 50)]
    window: u32,
    /// Messages of one publisher in a second, 0 for as many as go
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Seconds without a message after which subscribers stop waiting
    #[arg(long, default_value_t = 3)]
    patience: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct FlowResult {
    qos: u8,
    sent: u64,
    acknowledged: u64,
    expected: u64,
    received: u64,
    /// Came again, or after a later one of the same publisher.
    repeated: u64,
    seconds: f64,
    received_per_second: f64,
}

#[derive(Default)]
struct Tally {
    received: u64,
    repeated: u64,
    last: Option<Instant>,
}

pub(crate) async fn run(args: FlowArgs) -> anyhow::Result<FlowResult> {
    let tls = args.tls.connector()?;
    let args = Arc::new(args);
    let prefix = format!("load/{}", std::process::id());
    let mut subscribers = JoinSet::new();
    for number in 0..args.subscribers {
        let connection = open_subscriber(&args, &tls, &prefix, number).await.context("subscriber")?;
        subscribers.spawn(subscriber(Arc::clone(&args), connection));
    }
    let mut publishers = JoinSet::new();
    let mut opened = Vec::new();
    for number in 0..args.publishers {
        let id = format!("load-pub-{}-{number}", std::process::id());
        opened.push((number, connection::connect(args.publish, &tls, &id).await.context("publisher")?));
    }
    let begin = Instant::now();
    for (number, connection) in opened {
        let topic = TopicName::new(Text::new(&format!("{prefix}/{number}"))?)?;
        publishers.spawn(publisher(Arc::clone(&args), connection, topic, number));
    }
    let (mut sent, mut acknowledged) = (0, 0);
    while let Some(ended) = publishers.join_next().await {
        let (one_sent, one_acknowledged) = ended??;
        sent += one_sent;
        acknowledged += one_acknowledged;
    }
    let mut total = Tally::default();
    while let Some(ended) = subscribers.join_next().await {
        let tally = ended??;
        total.received += tally.received;
        total.repeated += tally.repeated;
        total.last = total.last.max(tally.last);
    }
    let seconds = total.last.map_or(0.0, |last| (last - begin).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let received_per_second = if seconds > 0.0 { total.received as f64 / seconds } else { 0.0 };
    Ok(FlowResult {
        qos: args.qos,
        sent,
        acknowledged,
        expected: sent * u64::from(args.subscribers),
        received: total.received,
        repeated: total.repeated,
        seconds,
        received_per_second,
    })
}

fn qos(args: &FlowArgs) -> QoS {
    if args.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

async fn open_subscriber(
    args: &FlowArgs,
    tls: &Connector,
    prefix: &str,
    number: u32,
) -> anyhow::Result<(Sender, Receiver)> {
    let id = format!("load-sub-{}-{number}", std::process::id());
    let (mut sender, mut receiver) = connection::connect(args.subscribe, tls, &id).await?;
    sender.put(&connection::subscribe(&format!("{prefix}/#"), qos(args))?)?;
    sender.flush().await?;
    match receiver.next().await? {
        Some(Packet::SubAck(_)) => Ok((sender, receiver)),
        other => anyhow::bail!("no SUBACK but {other:?}"),
    }
}

/// Sends every message; waits until all QoS 1 messages are acknowledged.
async fn publisher(
    args: Arc<FlowArgs>,
    (mut sender, mut receiver): (Sender, Receiver),
    topic: TopicName,
    number: u32,
) -> anyhow::Result<(u64, u64)> {
    let (qos, window) = (qos(&args), u64::from(args.window));
    let begin = Instant::now();
    let (mut sent, mut acknowledged) = (0_u64, 0_u64);
    let mut payload = BytesMut::with_capacity(args.size.max(HEADER));
    while sent < u64::from(args.messages) {
        if args.rate > 0 {
            let due = begin + Duration::from_secs_f64(f64::from(u32::try_from(sent)?) / f64::from(args.rate));
            if due > Instant::now() {
                sender.flush().await?;
                tokio::time::sleep_until(due).await;
            }
        }
        payload.clear();
        payload.put_u32(number);
        payload.put_u64(sent);
        payload.resize(args.size.max(HEADER), b'x');
        sender.put(&connection::publish(&topic, qos, connection::packet_id(sent), Bytes::copy_from_slice(&payload)))?;
        sent += 1;
        if sender.pending() >= BATCH {
            sender.flush().await?;
        }
        while qos == QoS::AtLeastOnce && sent - acknowledged >= window {
            sender.flush().await?;
            acknowledged += acknowledgements(&mut receiver).await?;
        }
    }
    sender.flush().await?;
    while qos == QoS::AtLeastOnce && acknowledged < sent {
        acknowledged += acknowledgements(&mut receiver).await?;
    }
    // Held open until the end: a close must not overtake what the broker has not read.
    if qos == QoS::AtMostOnce {
        sender.put(&Packet::PingReq)?;
        sender.flush().await?;
        receiver.next().await?;
    }
    Ok((sent, acknowledged))
}

/// Waits for at least one PUBACK and counts all that have come.
async fn acknowledgements(receiver: &mut Receiver) -> anyhow::Result<u64> {
    let mut count = 0;
    let mut packet = receiver.next().await?.context("connection closed while waiting for PUBACK")?;
    loop {
        match packet {
            Packet::PubAck(_) => count += 1,
            other => anyhow::bail!("no PUBACK but {other:?}"),
        }
        match receiver.buffered()? {
            Some(next) => packet = next,
            None => return Ok(count),
        }
    }
}

/// Counts until all have come, or none for `patience`.
async fn subscriber(args: Arc<FlowArgs>, (mut sender, mut receiver): (Sender, Receiver)) -> anyhow::Result<Tally> {
    let expected = u64::from(args.messages) * u64::from(args.publishers);
    let mut next_of = vec![0_u64; usize::try_from(args.publishers)?];
    let mut tally = Tally::default();
    let patience = Duration::from_secs(args.patience);
    while tally.received < expected {
        let Ok(packet) = timeout(patience, receiver.next()).await else { break };
        let mut packet = packet?;
        while let Some(Packet::Publish(publish)) = packet {
            count(&mut tally, &mut next_of, &publish.payload)?;
            if let Some(packet_id) = publish.packet_id {
                sender.put(&Packet::PubAck(Ack { packet_id, reason: ReasonCode::Success, properties: None }))?;
            }
            packet = receiver.buffered()?;
        }
        tally.last = Some(Instant::now());
        sender.flush().await?;
    }
    Ok(tally)
}

fn count(tally: &mut Tally, next_of: &mut [u64], payload: &[u8]) -> anyhow::Result<()> {
    let (publisher, number) = payload.split_at_checked(4).context("short payload")?;
    let publisher = usize::try_from(u32::from_be_bytes(publisher.try_into()?))?;
    let number = u64::from_be_bytes(number.get(..8).context("short payload")?.try_into()?);
    let next = next_of.get_mut(publisher).context("unknown publisher")?;
    // A jump ahead is a gap, as QoS 0 may have them; what comes later from inside it counts as repeated.
    if number < *next {
        tally.repeated += 1;
    } else {
        tally.received += 1;
        *next = number + 1;
    }
    Ok(())
}
