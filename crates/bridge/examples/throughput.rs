//! How many messages a second one link carries, and what each of them costs: two bridges on loopback with real TLS, one thread
//! that publishes and waits while the pressure is high, as a broker does.
//!
//! `cargo run --release -p evermq-bridge --example throughput -- [MESSAGES] [PAYLOAD_BYTES] [PER_SECOND]`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "a measurement for developers"
)]

#[path = "../tests/mesh/cluster.rs"]
mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_bridge::{Arrived, Bridge, Local, Message, Pressure};
use evermq_config::BrokerConfig;
use evermq_daemon::tls::Material;
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use evermq_store::Position;
use nix::sys::resource::{UsageWho, getrusage};
use tokio_util::sync::CancellationToken;

/// Counts, and remembers how long messages took; the two bridges share one clock.
struct Counter {
    start: Instant,
    messages: AtomicU64,
    latencies: parking_lot::Mutex<Vec<u64>>,
}

impl Local for Counter {
    fn deliver(&self, messages: &mut Vec<Arrived>, applied: &mut dyn FnMut() -> Position) {
        for Arrived { message, .. } in messages.drain(..) {
            let sent = u64::from_be_bytes(message.publish.payload[..8].try_into().unwrap());
            let took = u64::try_from(self.start.elapsed().as_nanos()).unwrap() - sent;
            self.latencies.lock().push(took);
            self.messages.fetch_add(1, Ordering::Release);
        }
        applied();
    }

    fn retained(&self) -> Vec<Arc<Message>> {
        Vec::new()
    }

    fn apply_retained(&self, _: Arc<Message>) {}
}

/// A bridge in a thread that gives the CPU time it took.
struct Node {
    bridge: Arc<Bridge>,
    counter: Arc<Counter>,
    stop: CancellationToken,
    thread: JoinHandle<Duration>,
}

impl Node {
    fn start(listener: std::net::TcpListener, config: &BrokerConfig, start: Instant) -> Self {
        let counter =
            Arc::new(Counter { start, messages: AtomicU64::new(0), latencies: parking_lot::Mutex::default() });
        let local: Arc<dyn Local> = Arc::<Counter>::clone(&counter);
        let bridge = Bridge::on_listener(listener, config, &Material::load(&config.tls).unwrap(), local).unwrap();
        let stop = CancellationToken::new();
        let thread = std::thread::spawn({
            let (bridge, stop) = (Arc::clone(&bridge), stop.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(bridge.run(stop)).unwrap();
                cpu_of_this_thread()
            }
        });
        Self { bridge, counter, stop, thread }
    }
}

fn cpu_of_this_thread() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let time = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec() * 1000).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let messages = arguments.next().unwrap_or(2_000_000);
    let payload = usize::try_from(arguments.next().unwrap_or(64)).unwrap().max(8);
    let per_second = arguments.next();
    let (cluster, listeners) = cluster::Cluster::new(2);
    let start = Instant::now();
    let mut nodes =
        listeners.into_iter().enumerate().map(|(index, socket)| Node::start(socket, &cluster.config(index), start));
    let (sender, receiver) = (nodes.next().unwrap(), nodes.next().unwrap());
    while !sender.bridge.state().peers[0].connected {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = TopicName::new(Text::new("bench/topic").unwrap()).unwrap();
    let begin = Instant::now();
    let mut waits = 0;
    for number in 0..messages {
        if let Some(rate) = per_second
            && number % 16 == 0
        {
            let due = begin + Duration::from_nanos(number * 1_000_000_000 / rate);
            runtime.block_on(async { tokio::time::sleep_until(due.into()).await });
        }
        let mut body = vec![0; payload];
        body[..8].copy_from_slice(&u64::try_from(start.elapsed().as_nanos()).unwrap().to_be_bytes());
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic.clone(),
            packet_id: None,
            properties: None,
            payload: Bytes::from(body),
        };
        let message = Message { publish, stamp: sender.bridge.next_stamp(), received: Instant::now(), publisher: None };
        if sender.bridge.publish(Arc::new(message), None, None, None).0 == Pressure::High {
            waits += 1;
            runtime.block_on(sender.bridge.relieved());
        }
    }
    let publisher = cpu_of_this_thread();
    while receiver.counter.messages.load(Ordering::Acquire) < messages {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let took = begin.elapsed();
    let lost = sender.bridge.state().peers[0].lost;
    sender.stop.cancel();
    let sending = sender.thread.join().unwrap();
    receiver.stop.cancel();
    let receiving = receiver.thread.join().unwrap();
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / messages as f64;
    let mut latencies = std::mem::take(&mut *receiver.counter.latencies.lock());
    latencies.sort_unstable();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100] as f64 / 1e6;
    println!(
        "{messages} messages of {payload} bytes in {:.2} s: {:.0} msg/s; CPU us per message: publisher {:.2}, sender {:.2}, \
         receiver {:.2}; latency ms p50 {:.3} p99 {:.3}; publisher waited {waits} times; lost {lost}",
        took.as_secs_f64(),
        messages as f64 / took.as_secs_f64(),
        each(publisher),
        each(sending),
        each(receiving),
        percentile(50),
        percentile(99),
    );
}
