//! rumqttc, a Rust client, over mutual TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use evermq_config::{HostName, TlsFiles};
use evermq_daemon::tls::Material;
use rumqttc::{TlsConfiguration, Transport};

use crate::running::{PATIENCE, Running, start};

fn transport(files: &TlsFiles) -> Transport {
    let name = HostName::new("broker1").unwrap();
    let tls = Material::load(files).unwrap().client_config_for(&name, [127, 0, 0, 1].into()).unwrap();
    Transport::tls_with_config(TlsConfiguration::Rustls(tls))
}

/// What the two interfaces of rumqttc do not have in common.
mod v4 {
    pub(super) use rumqttc::{Client, ConnectReturnCode, Event, LastWill, MqttOptions, Packet, QoS};

    pub(super) const ACCEPTED: ConnectReturnCode = ConnectReturnCode::Success;

    pub(super) fn resume(options: &mut MqttOptions, resume: bool) {
        options.set_clean_session(!resume);
    }

    pub(super) fn will(topic: &str, payload: &str) -> LastWill {
        LastWill::new(topic, payload, QoS::ExactlyOnce, false)
    }
}

mod v5 {
    pub(super) use rumqttc::v5::mqttbytes::QoS;
    pub(super) use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, LastWill, Packet};
    pub(super) use rumqttc::v5::{Client, Event, MqttOptions};

    pub(super) const ACCEPTED: ConnectReturnCode = ConnectReturnCode::Success;

    pub(super) fn resume(options: &mut MqttOptions, resume: bool) {
        options.set_clean_start(!resume);
        options.set_session_expiry_interval(resume.then_some(60));
    }

    pub(super) fn will(topic: &str, payload: &str) -> LastWill {
        LastWill::new(topic, payload.to_owned(), QoS::ExactlyOnce, false, None)
    }
}

/// The same scenarios with each of them.
macro_rules! scenarios {
    ($test:ident, $api:ident) => {
        mod $test {
            use super::$api::{ACCEPTED, Client, Event, MqttOptions, Packet, QoS, resume, will};
            use super::*;

            /// A client whose connection a thread drives; what comes in waits in a queue.
            struct Device {
                client: Client,
                incoming: Receiver<Packet>,
                gone: Arc<AtomicBool>,
                thread: Option<JoinHandle<()>>,
                session_present: bool,
            }

            impl Device {
                fn open(broker: &Running, files: &TlsFiles, id: &str, change: impl FnOnce(&mut MqttOptions)) -> Self {
                    let mut options = MqttOptions::new(id, "127.0.0.1", broker.tls.port());
                    options.set_transport(transport(files));
                    change(&mut options);
                    let (client, mut connection) = Client::new(options, 100);
                    let (sender, incoming) = channel();
                    let gone = Arc::new(AtomicBool::new(false));
                    let stop = Arc::clone(&gone);
                    let thread = std::thread::spawn(move || {
                        while let Ok(Ok(event)) = connection.recv() {
                            if stop.load(Ordering::SeqCst) {
                                return;
                            }
                            if let Event::Incoming(packet) = event {
                                let _ = sender.send(packet);
                            }
                        }
                    });
                    let mut device = Self { client, incoming, gone, thread: Some(thread), session_present: false };
                    match device.next() {
                        Packet::ConnAck(connack) => {
                            assert_eq!(connack.code, ACCEPTED);
                            device.session_present = connack.session_present;
                        }
                        other => panic!("{other:?}"),
                    }
                    device
                }

                fn next(&self) -> Packet {
                    self.incoming.recv_timeout(PATIENCE).expect("a packet")
                }

                fn subscribe(&self, filter: &str) {
                    self.client.subscribe(filter, QoS::ExactlyOnce).unwrap();
                    while !matches!(self.next(), Packet::SubAck(_)) {}
                }

                /// Publishes, and waits for the end of the exchange.
                fn publish(&self, topic: &str, qos: QoS, retain: bool, payload: &str) {
                    self.client.publish(topic, qos, retain, payload.to_owned()).unwrap();
                    while qos != QoS::AtMostOnce && !matches!(self.next(), Packet::PubAck(_) | Packet::PubComp(_)) {}
                }

                /// The next message: topic, QoS, retained, payload.
                fn message(&self) -> (String, QoS, bool, String) {
                    loop {
                        if let Packet::Publish(publish) = self.next() {
                            let topic: &[u8] = publish.topic.as_ref();
                            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                            return (text(topic), publish.qos, publish.retain, text(&publish.payload));
                        }
                    }
                }

                /// Ends without a word; the kernel closes the connection.
                fn vanish(mut self) {
                    self.gone.store(true, Ordering::SeqCst);
                    // For the thread to look up.
                    self.client.publish("last/words", QoS::AtMostOnce, false, "").unwrap();
                    self.thread.take().unwrap().join().unwrap();
                }

                fn close(mut self) {
                    self.client.disconnect().unwrap();
                    self.thread.take().unwrap().join().unwrap();
                }
            }

            #[test]
            fn every_qos_both_ways_and_retained() {
                let (site, broker) = start();
                let tls = site.ca.issue("device-1", 1);
                let subscriber = Device::open(&broker, &tls, "s", |_| {});
                let publisher = Device::open(&broker, &tls, "p", |_| {});
                subscriber.subscribe("t/#");
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    let topic = format!("t/{}", qos as u8);
                    publisher.publish(&topic, qos, false, "hello");
                    assert_eq!(subscriber.message(), (topic, qos, false, "hello".to_owned()));
                }
                publisher.publish("r", QoS::AtLeastOnce, true, "kept");
                subscriber.subscribe("r");
                assert_eq!(subscriber.message(), ("r".to_owned(), QoS::AtLeastOnce, true, "kept".to_owned()));
                publisher.close();
                subscriber.close();
            }

            #[test]
            fn a_will() {
                let (site, broker) = start();
                let tls = site.ca.issue("device-1", 1);
                let watcher = Device::open(&broker, &tls, "w", |_| {});
                watcher.subscribe("will");
                let dying = Device::open(&broker, &tls, "dying", |options| {
                    options.set_last_will(will("will", "gone"));
                });
                dying.vanish();
                assert_eq!(watcher.message().3, "gone");
            }

            #[test]
            fn a_session_that_waits() {
                let (site, broker) = start();
                let tls = site.ca.issue("device-1", 1);
                let sleeper = || Device::open(&broker, &tls, "sleeper", |options| resume(options, true));
                let subscriber = sleeper();
                assert!(!subscriber.session_present);
                subscriber.subscribe("q");
                subscriber.close();
                let publisher = Device::open(&broker, &tls, "p", |_| {});
                let numbers: Vec<_> = (0..20).map(|number| number.to_string()).collect();
                for (number, qos) in numbers.iter().zip([QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().cycle()) {
                    publisher.publish("q", qos, false, number);
                }
                let subscriber = sleeper();
                assert!(subscriber.session_present);
                let mut heard: Vec<_> = numbers.iter().map(|_| subscriber.message().3).collect();
                heard.sort_by_key(|number| number.parse::<u32>().unwrap());
                assert_eq!(heard, numbers);
            }
        }
    };
}

scenarios!(mqtt_3_1_1, v4);
scenarios!(mqtt_5, v5);
