//! A subscriber: acknowledges, and counts what is lost or repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::link::{Reader, Writer};
use crate::wire::{self, Message};

/// What publishers and subscribers know of each other.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) sent: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) delivered: AtomicU64,
    /// Came again, or after a later one of the same publisher.
    pub(crate) repeated: AtomicU64,
    /// Numbers that were left out.
    pub(crate) missing: AtomicU64,
    /// A message was delivered.
    pub(crate) changed: Notify,
    pub(crate) stop: AtomicBool,
}

/// Appends the answer to a packet, if it wants one.
pub(crate) fn answer(out: &mut BytesMut, first: u8, body: &[u8]) {
    match first >> 4 {
        wire::PUBLISH => match Message::read(first, body) {
            Some(Message { qos: 1, id, .. }) => wire::ack(out, wire::PUBACK, id),
            Some(Message { qos: 2, id, .. }) => wire::ack(out, wire::PUBREC, id),
            _ => {}
        },
        wire::PUBREL => {
            if let Some(id) = body.first_chunk() {
                wire::ack(out, wire::PUBCOMP, *id);
            }
        }
        _ => {}
    }
}

/// Reads until the connection ends.
pub(crate) async fn run(mut reader: Reader, mut writer: Writer, progress: Arc<Progress>) -> anyhow::Result<()> {
    let mut next_of: HashMap<u32, u64> = HashMap::new();
    loop {
        let (mut count, mut repeated, mut missing) = (0, 0, 0);
        let out = &mut writer.out;
        reader
            .read(|first, body| {
                answer(out, first, body);
                if first >> 4 != wire::PUBLISH {
                    return;
                }
                let Some((publisher, number)) = Message::read(first, body).and_then(|message| message.numbers()) else {
                    return;
                };
                let next = next_of.entry(publisher).or_default();
                if number < *next {
                    repeated += 1;
                } else {
                    missing += number - *next;
                    *next = number + 1;
                    count += 1;
                }
            })
            .await?;
        writer.flush().await?;
        progress.delivered.fetch_add(count, Relaxed);
        progress.repeated.fetch_add(repeated, Relaxed);
        progress.missing.fetch_add(missing, Relaxed);
        progress.changed.notify_waiters();
    }
}
