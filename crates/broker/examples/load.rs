//! Load for a broker on plain TCP, MQTT 3.1.1: `load PORT PID SECONDS [SCENARIO...]`.
//!
//! Each scenario is `PUBLISHERS:SUBSCRIBERS:QOS`, or `idle:COUNT` for the memory of connections that do nothing. A bounded number of messages is on the way at any time, so nothing need be
//! dropped: publishers wait for deliveries at QoS 0, and for PUBACK too at QoS 1. Prints deliveries per second, deliveries
//! per second of the broker's CPU, and its resident memory, for 64-byte payloads.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::unwrap_used, reason = "a failed measurement ends the program")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const PAYLOAD: usize = 64;
/// Messages on the way at once, all publishers together.
const WINDOW: u64 = 4000;
/// QoS 1 messages that one publisher leaves unacknowledged.
const UNACKNOWLEDGED: u64 = 100;
const BATCH: u64 = 50;

#[derive(Clone, Copy)]
struct Scenario {
    publishers: u64,
    subscribers: u64,
    qos: u8,
}

#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    delivered: AtomicU64,
    changed: Notify,
    stop: AtomicBool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [port, pid, seconds, scenarios @ ..] = args.as_slice() else { panic!("load PORT PID SECONDS [SCENARIO...]") };
    let all = ["1:1:0", "1:1:1", "1:100:0", "1:100:1", "50:1:1"].map(str::to_owned);
    let scenarios = if scenarios.is_empty() { all.as_slice() } else { scenarios };
    for text in scenarios {
        if let Some(count) = text.strip_prefix("idle:") {
            let each = idle(port.parse().unwrap(), pid, count.parse().unwrap()).await;
            println!("{text:8} {each:6.2} kB/connection");
            continue;
        }
        let numbers: Vec<u64> = text.split(':').map(|part| part.parse().unwrap()).collect();
        let scenario =
            Scenario { publishers: numbers[0], subscribers: numbers[1], qos: u8::try_from(numbers[2]).unwrap() };
        let time = Duration::from_secs(seconds.parse().unwrap());
        let (rate, per_cpu) = run(port.parse().unwrap(), pid, scenario, time).await;
        println!("{text:8} {:9.0}/s {:9.0}/CPU-s {:6} kB", rate, per_cpu, resident(pid));
    }
}

async fn run(port: u16, pid: &str, scenario: Scenario, time: Duration) -> (f64, f64) {
    let progress = Arc::new(Progress::default());
    let mut tasks = JoinSet::new();
    for number in 0..scenario.subscribers {
        let (reader, mut writer) = connect(port, &format!("s{number}-{}", std::process::id())).await;
        let mut subscribe = vec![0x82, 12, 0, 1, 0, 7];
        subscribe.extend(b"bench/#");
        subscribe.push(scenario.qos);
        writer.write_all(&subscribe).await.unwrap();
        tasks.spawn(subscriber(reader, writer, Arc::clone(&progress)));
    }
    // A moment for every SUBACK: what is published before does not count anyway.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for number in 0..scenario.publishers {
        let (reader, writer) = connect(port, &format!("p{number}-{}", std::process::id())).await;
        tasks.spawn(publisher(reader, writer, scenario, number, Arc::clone(&progress)));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (cpu, delivered, started) = (cpu_seconds(pid), progress.delivered.load(Relaxed), now());
    tokio::time::sleep(time).await;
    let delivered = (progress.delivered.load(Relaxed) - delivered) as f64;
    let (elapsed, cpu) = (now() - started, cpu_seconds(pid) - cpu);
    progress.stop.store(true, Relaxed);
    tasks.shutdown().await;
    (delivered / elapsed.as_secs_f64(), delivered / cpu)
}

/// Resident kilobytes for each of `count` connections.
async fn idle(port: u16, pid: &str, count: u32) -> f64 {
    // What the first connections make the broker allocate once is not counted.
    let mut held = vec![connect(port, "warm-up").await];
    let before = resident(pid);
    for number in 0..count {
        held.push(connect(port, &format!("idle-{number}")).await);
    }
    (resident(pid) as f64 - before as f64) / f64::from(count)
}

async fn connect(port: u16, id: &str) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let id_len = u8::try_from(id.len()).unwrap();
    let mut packet = vec![0x10, 12 + id_len, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id_len];
    packet.extend(id.as_bytes());
    stream.write_all(&packet).await.unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream.into_split()
}

/// Counts messages and acknowledges those of QoS 1.
async fn subscriber(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, progress: Arc<Progress>) {
    let mut packets = Packets::default();
    let mut acks = Vec::new();
    loop {
        let mut count = 0;
        let read = packets
            .read(&mut reader, |packet| {
                if packet[0] >> 4 == 3 {
                    count += 1;
                    if packet[0] & 0x06 != 0 {
                        let topic = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                        acks.extend([0x40, 2, packet[4 + topic], packet[5 + topic]]);
                    }
                }
            })
            .await;
        if read.is_err() || writer.write_all(&acks).await.is_err() {
            return;
        }
        acks.clear();
        progress.delivered.fetch_add(count, Relaxed);
        progress.changed.notify_waiters();
    }
}

async fn publisher(
    reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    scenario: Scenario,
    number: u64,
    progress: Arc<Progress>,
) {
    let acknowledged = Arc::new((AtomicU64::new(0), Notify::new()));
    let acks = tokio::spawn(count_acks(reader, Arc::clone(&acknowledged)));
    let topic = format!("bench/{number}");
    let mut sent = 0;
    let mut batch = Vec::new();
    let behind = || {
        let delivered = progress.delivered.load(Relaxed) / scenario.subscribers;
        progress.sent.load(Relaxed).saturating_sub(delivered) >= WINDOW
    };
    while !progress.stop.load(Relaxed) {
        batch.clear();
        for _ in 0..BATCH {
            sent += 1;
            append(&mut batch, &topic, scenario.qos, sent);
        }
        progress.sent.fetch_add(BATCH, Relaxed);
        if writer.write_all(&batch).await.is_err() {
            break;
        }
        loop {
            let changed = progress.changed.notified();
            if !behind() {
                break;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
        }
        loop {
            let changed = acknowledged.1.notified();
            if scenario.qos == 0 || sent - acknowledged.0.load(Relaxed) <= UNACKNOWLEDGED - BATCH {
                break;
            }
            changed.await;
        }
    }
    acks.abort();
}

async fn count_acks(mut reader: OwnedReadHalf, acknowledged: Arc<(AtomicU64, Notify)>) {
    let mut packets = Packets::default();
    loop {
        let mut count = 0;
        if packets.read(&mut reader, |_| count += 1).await.is_err() {
            return;
        }
        acknowledged.0.fetch_add(count, Relaxed);
        acknowledged.1.notify_one();
    }
}

fn append(out: &mut Vec<u8>, topic: &str, qos: u8, number: u64) {
    let remaining = 2 + topic.len() + usize::from(qos > 0) * 2 + PAYLOAD;
    out.extend([0x30 | qos << 1, u8::try_from(remaining).unwrap(), 0, u8::try_from(topic.len()).unwrap()]);
    out.extend(topic.as_bytes());
    if qos > 0 {
        out.extend(u16::try_from(number % 65_535 + 1).unwrap().to_be_bytes());
    }
    out.extend([b'x'; PAYLOAD]);
}

/// Packets of less than 128 bytes out of a stream.
#[derive(Default)]
struct Packets(Vec<u8>);

impl Packets {
    async fn read(&mut self, reader: &mut OwnedReadHalf, mut found: impl FnMut(&[u8])) -> io::Result<()> {
        self.0.reserve(65_536);
        if reader.read_buf(&mut self.0).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = self.0.as_slice();
        while let [_, len, ..] = rest {
            let Some((packet, more)) = rest.split_at_checked(2 + usize::from(*len)) else { break };
            found(packet);
            rest = more;
        }
        let done = self.0.len() - rest.len();
        self.0.drain(..done);
        Ok(())
    }
}

/// User and system time of the process (proc(5): fields 14 and 15 of stat, in ticks of 10 ms).
fn cpu_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn resident(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
