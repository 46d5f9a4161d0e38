//! What the store does on the disk at hand: messages and syncs in a second, and what it takes to open a million messages.
//!
//! `make bench-store`, or with DIR= the directory of another disk. Everything that is written is removed at the end.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement, told to whoever runs it")]

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use evermq_store::{
    Handle, Position, Record, SessionId, SessionState, Settings, Store, StoredMessage, Sync, Waiting, WallTime, open,
};

/// What each run of publishers is given.
const EACH: Duration = Duration::from_secs(2);
const MILLION: u64 = 1_000_000;
const NOW: WallTime = WallTime(1);

fn main() -> anyhow::Result<()> {
    let disk = std::env::args_os().nth(1).unwrap_or_else(|| std::env::temp_dir().into());
    let directory = tempfile::tempdir_in(&disk).context("no directory can be made there")?;
    println!("{:<10} {:>10} {:>12} {:>9} {:>14}", "sync", "publishers", "messages/s", "syncs/s", "CPU us/message");
    let interval = Sync::Interval(Duration::from_secs(1));
    for (name, sync) in [("always", Sync::Always), ("interval", interval), ("never", Sync::Never)] {
        for publishers in [1, 10, 100] {
            publish(name, &settings(directory.path(), name, sync), publishers)?;
        }
    }
    println!("\n{:<28} {:>8} {:>8} {:>12}", "opening a million messages", "MB", "CPU s", "resident MB");
    opening("retained", directory.path())?;
    opening("waiting for a session", directory.path())
}

fn settings(directory: &Path, name: &str, sync: Sync) -> Settings {
    Settings { path: directory.join(name), sync, segment_size: 16 << 20, max_size: 4 << 30 }
}

/// Publishers that each wait until a message is durable before they send the next.
fn publish(name: &str, settings: &Settings, publishers: usize) -> anyhow::Result<()> {
    let (store, _) = open(settings, NOW)?;
    let (before, cpu_before, start) = (store.figures(), cpu()?, Instant::now());
    let sent: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..publishers).map(|_| scope.spawn(|| publish_until(&store, start + EACH))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a publisher ends")).sum()
    });
    let seconds = start.elapsed().as_secs_f64();
    let used = cpu()?.saturating_sub(cpu_before).as_secs_f64();
    let syncs = store.figures().syncs - before.syncs;
    store.close();
    std::fs::remove_dir_all(&settings.path)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
    let (messages, syncs) = (sent as f64, syncs as f64);
    let (rate, syncs, each) = (messages / seconds, syncs / seconds, used * 1e6 / messages);
    println!("{name:<10} {publishers:>10} {rate:>12.0} {syncs:>9.0} {each:>14.2}");
    Ok(())
}

fn publish_until(store: &Store, end: Instant) -> u64 {
    let session = begin(store, "absent");
    let publish = message("plant/1/state");
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let context = Context::from_waker(&waker);
    let mut sent = 0;
    while Instant::now() < end {
        while store.poll_pace(&context).is_pending() {
            std::thread::park();
        }
        let (_kept, at) = append(store, session, &publish, sent);
        while store.poll_durable(at, &context) == Poll::Pending {
            std::thread::park();
        }
        sent += 1;
    }
    sent
}

/// Fills a store with a million messages and opens it again.
fn opening(what: &str, directory: &Path) -> anyhow::Result<()> {
    let settings = settings(directory, "million", Sync::Never);
    let (store, _) = open(&settings, NOW)?;
    let session = begin(&store, "absent");
    let mut kept = Vec::new();
    for number in 0..MILLION {
        let publish = message(&format!("plant/{number}/state"));
        if what == "retained" {
            let (handle, _) = store.append_message(&stored(&publish, number, true))?;
            kept.push(handle);
        } else {
            kept.push(append(&store, session, &publish, number).0);
        }
        if number % 10_000 == 0 {
            store.pace();
        }
    }
    store.close();
    drop((kept, store));
    let (cpu_before, resident_before) = (cpu()?, resident()?);
    let (store, recovered) = open(&settings, NOW)?;
    let used = cpu()?.saturating_sub(cpu_before).as_secs_f64();
    anyhow::ensure!(recovered.messages.len() as u64 == MILLION, "{} messages", recovered.messages.len());
    let resident = resident()?.saturating_sub(resident_before) / 1024;
    println!("{what:<28} {:>8} {used:>8.1} {resident:>12}", recovered.report.bytes / 1_000_000);
    drop(recovered);
    store.close();
    std::fs::remove_dir_all(&settings.path)?;
    Ok(())
}

fn append(store: &Store, session: SessionId, publish: &Publish, number: u64) -> (Handle, Position) {
    let (handle, _) = store.append_message(&stored(publish, number, false)).expect("it is an MQTT packet");
    let waiting = Waiting { message: handle.id(), qos: QoS::AtLeastOnce, retain: false, ids: Cow::Owned(Vec::new()) };
    let at = store.append(&Record::Enqueue { session, waiting });
    (handle, at)
}

fn begin(store: &Store, client_id: &str) -> SessionId {
    let session = store.new_session();
    let client_id = Cow::Owned(format!("{client_id}-{}", session.0));
    store.append(&Record::Session(SessionState {
        session,
        client_id,
        user: None,
        expiry: u32::MAX,
        will: None,
        connected: false,
        at: NOW,
    }));
    session
}

fn message(topic: &str) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::new(Text::new(topic).expect("short")).expect("well-formed"),
        packet_id: None,
        properties: None,
        payload: Bytes::from_static(&[b'x'; 64]),
    }
}

const fn stored(publish: &Publish, number: u64, retained: bool) -> StoredMessage<'_> {
    StoredMessage { publish, stamp_time: number, stamp_origin: "bench", received: NOW, retained, from: None }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// CPU time of this process, all threads.
fn cpu() -> anyhow::Result<Duration> {
    use nix::time::{ClockId, clock_gettime};
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Kilobytes of this process that are in memory.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
