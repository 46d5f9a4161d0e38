//! A bridge in a thread of its own, and a broker around it that remembers what it is given.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_bridge::{Arrived, Bridge, BridgeState, Local, Message, PeerState, PeersChanged, Pressure, Publisher};
use evermq_config::BrokerConfig;
use evermq_daemon::{listen, tls};
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use evermq_store::Position;
use tokio_util::sync::CancellationToken;

/// For anything that should happen soon.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the broker was given.
#[derive(Default)]
pub struct Received {
    pub delivered: Mutex<Vec<Arc<Message>>>,
    pub retained: Mutex<BTreeMap<String, Arc<Message>>>,
}

impl Received {
    pub fn keep(&self, message: Arc<Message>) {
        let mut retained = self.retained.lock().unwrap();
        let topic = message.publish.topic.as_str().to_owned();
        if retained.get(&topic).is_none_or(|held| held.stamp < message.stamp) {
            retained.insert(topic, message);
        }
    }
}

impl Local for Received {
    fn deliver(&self, messages: &mut Vec<Arrived>, applied: &mut dyn FnMut() -> Position) {
        for Arrived { message, .. } in messages.drain(..) {
            if message.publish.retain {
                self.keep(Arc::clone(&message));
            }
            self.delivered.lock().unwrap().push(message);
        }
        applied();
    }

    fn retained(&self) -> Vec<Arc<Message>> {
        self.retained.lock().unwrap().values().cloned().collect()
    }

    fn apply_retained(&self, message: Arc<Message>) {
        self.keep(message);
    }
}

/// What the bridge's thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A broker that runs.
pub struct Broker {
    pub bridge: Arc<Bridge>,
    pub received: Arc<Received>,
    log: Log,
    stop: CancellationToken,
    kill: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// On a socket that listens already.
    pub fn start_on(listener: TcpListener, config: &BrokerConfig) -> Self {
        let received = Arc::new(Received::default());
        let material = tls::Material::load(&config.tls).unwrap();
        let local: Arc<dyn Local> = Arc::<Received>::clone(&received);
        let bridge = Bridge::on_listener(listener, config, &material, local).unwrap();
        let (stop, kill, log) = (CancellationToken::new(), CancellationToken::new(), Log::default());
        let thread = std::thread::spawn({
            let (bridge, stop, kill, log) = (Arc::clone(&bridge), stop.clone(), kill.clone(), log.clone());
            move || {
                let subscriber = tracing_subscriber::fmt()
                    .with_writer(move || log.clone())
                    .with_max_level(tracing::Level::DEBUG)
                    .with_ansi(false)
                    .finish();
                let _guard = tracing::subscriber::set_default(subscriber);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    tokio::select! {
                        () = kill.cancelled() => {}
                        ended = bridge.run(stop) => ended.unwrap(),
                    }
                });
            }
        });
        Self { bridge, received, log, stop, kill, thread: Some(thread) }
    }

    /// Binds the address of the configuration.
    pub fn start(config: &BrokerConfig) -> Self {
        Self::start_on(listen::tcp(config.peer_listen, false).unwrap(), config)
    }

    /// A message of one of this broker's own clients.
    pub fn message(&self, topic: &str, payload: &str, retain: bool) -> Arc<Message> {
        Arc::new(Message {
            publish: Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain,
                topic: TopicName::new(Text::new(topic).unwrap()).unwrap(),
                packet_id: None,
                properties: None,
                payload: Bytes::copy_from_slice(payload.as_bytes()),
            },
            stamp: self.bridge.next_stamp(),
            received: now(),
            publisher: Some(Publisher(std::num::NonZeroU64::MIN)),
        })
    }

    /// Publishes `count` messages: "0", "1", ... after a prefix.
    pub fn publish_many(&self, prefix: &str, count: u32) -> Pressure {
        let mut pressure = Pressure::Clear;
        for number in 0..count {
            pressure = self.publish(self.message("t", &format!("{prefix}{number}"), false));
        }
        pressure
    }

    /// A retained message, kept here and sent.
    pub fn publish_retained(&self, topic: &str, payload: &str) {
        let message = self.message(topic, payload, true);
        self.received.keep(Arc::clone(&message));
        self.publish(message);
    }

    pub fn publish(&self, message: Arc<Message>) -> Pressure {
        self.bridge.publish(message, None, None, None).0
    }

    /// What was delivered, in order.
    pub fn payloads(&self) -> Vec<String> {
        let delivered = self.received.delivered.lock().unwrap();
        delivered.iter().map(|message| String::from_utf8(message.publish.payload.to_vec()).unwrap()).collect()
    }

    /// What was delivered of those that begin with `prefix`.
    pub fn payloads_of(&self, prefix: &str) -> Vec<String> {
        self.payloads().into_iter().filter(|payload| payload.starts_with(prefix)).collect()
    }

    pub fn retained(&self) -> BTreeMap<String, String> {
        let retained = self.received.retained.lock().unwrap();
        let text = |message: &Message| String::from_utf8(message.publish.payload.to_vec()).unwrap();
        retained.iter().map(|(topic, message)| (topic.clone(), text(message))).collect()
    }

    pub fn state(&self) -> BridgeState {
        self.bridge.state()
    }

    pub fn peer(&self, name: &str) -> PeerState {
        self.state().peers.into_iter().find(|peer| peer.name == name).unwrap()
    }

    /// The cluster file is another one.
    pub fn reload(&self, config: &BrokerConfig) -> PeersChanged {
        self.bridge.reload(&tls::Material::load(&config.tls).unwrap(), &config.peers).unwrap()
    }

    pub fn log(&self) -> String {
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }

    /// Ends as SIGTERM does.
    pub fn stop(mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }

    /// Ends at once, as SIGKILL does: all sockets close, nothing more is sent.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.kill.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// Waits until `condition` holds, and fails with `what` if it does not come to hold.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = now() + DEADLINE;
    while !condition() {
        assert!(now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Waits until every broker is linked to every other one, both ways.
pub fn wait_until_meshed(brokers: &[&Broker]) {
    wait_until("all links are up", || {
        brokers.iter().all(|broker| broker.state().peers.iter().all(|peer| peer.connected && peer.receiving))
    });
}

#[expect(clippy::disallowed_methods, reason = "messages are dated, and conditions have deadlines")]
pub fn now() -> Instant {
    Instant::now()
}
