//! rust-mqtt, a client for devices without an operating system (`no_std`, MQTT 5.0), over mutual TLS.

use std::num::NonZero;
use std::sync::Arc;

use embedded_io_adapters::tokio_1::FromTokio;
use evermq_config::{HostName, TlsFiles};
use evermq_daemon::tls::{Material, server_name};
use rust_mqtt::buffer::AllocBuffer;
use rust_mqtt::client::Client;
use rust_mqtt::client::event::Event;
use rust_mqtt::client::options::{
    ConnectOptions, DisconnectOptions, PublicationOptions, SubscriptionOptions, TopicReference, WillOptions,
};
use rust_mqtt::config::SessionExpiryInterval;
use rust_mqtt::types::{MqttBinary, MqttString, QoS, TopicFilter, TopicName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::running::{PATIENCE, Running, start};

type Net = FromTokio<TlsStream<TcpStream>>;
/// One exchange at a time each way, as a small device has room for; no properties.
type Device<'c> = Client<'c, 'c, Net, AllocBuffer, 1, 1, 1, 0, 0, 0, 0>;

async fn net(broker: &Running, files: &TlsFiles) -> Net {
    let name = HostName::new("broker1").unwrap();
    let tls = Material::load(files).unwrap().client_config_for(&name, [127, 0, 0, 1].into()).unwrap();
    let stream = TcpStream::connect(broker.tls).await.unwrap();
    FromTokio::new(TlsConnector::from(Arc::clone(&tls)).connect(server_name(&name), stream).await.unwrap())
}

fn string(text: &str) -> MqttString<'_> {
    MqttString::from_str(text).unwrap()
}

fn topic(text: &str) -> TopicName<'_> {
    TopicName::new(string(text)).unwrap()
}

async fn subscribe(device: &mut Device<'_>, filter: &str) {
    let filter = TopicFilter::new(string(filter)).unwrap();
    device.subscribe(filter, &SubscriptionOptions::new().exactly_once()).await.unwrap();
    while !matches!(device.poll().await.unwrap(), Event::Suback(suback) if suback.reason_code.is_success()) {}
}

/// Publishes, and waits for the end of the exchange.
async fn publish(device: &mut Device<'_>, to: &str, qos: QoS, retain: bool, payload: &str) {
    let options = PublicationOptions::new(TopicReference::Name(topic(to))).qos(qos);
    let options = if retain { options.retain() } else { options };
    device.publish(&options, payload.into()).await.unwrap();
    while qos != QoS::AtMostOnce
        && !matches!(device.poll().await.unwrap(), Event::PublishAcknowledged(_) | Event::PublishComplete(_))
    {}
}

/// The next message: topic, QoS, retained, payload.
async fn message(device: &mut Device<'_>) -> (String, QoS, bool, String) {
    loop {
        if let Event::Publish(publish) = device.poll().await.unwrap() {
            let topic = publish.topic.name().unwrap().as_ref().as_str().to_owned();
            let payload = String::from_utf8(publish.message.as_bytes().to_vec()).unwrap();
            return (topic, publish.identified_qos.into(), publish.retain, payload);
        }
    }
}

fn run(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, scenario).await }).unwrap();
}

#[test]
fn every_qos_both_ways_and_retained() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    run(async {
        let mut buffers = [AllocBuffer, AllocBuffer];
        let [mut subscriber, mut publisher]: [Device<'_>; 2] = buffers.each_mut().map(Client::new);
        let options = ConnectOptions::new().clean_start();
        subscriber.connect(net(&broker, &tls).await, &options, Some(string("s"))).await.unwrap();
        publisher.connect(net(&broker, &tls).await, &options, Some(string("p"))).await.unwrap();
        subscribe(&mut subscriber, "t/#").await;
        for (to, qos) in [("t/0", QoS::AtMostOnce), ("t/1", QoS::AtLeastOnce), ("t/2", QoS::ExactlyOnce)] {
            publish(&mut publisher, to, qos, false, "hello").await;
            assert_eq!(message(&mut subscriber).await, (to.to_owned(), qos, false, "hello".to_owned()));
        }
        publish(&mut publisher, "r", QoS::AtLeastOnce, true, "kept").await;
        // Its last exchange of QoS 2 ends before another one begins.
        subscribe(&mut subscriber, "r").await;
        assert_eq!(message(&mut subscriber).await, ("r".to_owned(), QoS::AtLeastOnce, true, "kept".to_owned()));
        subscriber.disconnect(&DisconnectOptions::new()).await.unwrap();
    });
}

#[test]
fn a_will() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    run(async {
        let mut buffers = [AllocBuffer, AllocBuffer];
        let [mut watcher, mut dying]: [Device<'_>; 2] = buffers.each_mut().map(Client::new);
        let options = ConnectOptions::new().clean_start();
        watcher.connect(net(&broker, &tls).await, &options, Some(string("w"))).await.unwrap();
        subscribe(&mut watcher, "will").await;
        let will = WillOptions::new(topic("will"), MqttBinary::from_slice(b"gone").unwrap()).exactly_once();
        dying.connect(net(&broker, &tls).await, &options.will(will), Some(string("d"))).await.unwrap();
        // Its connection ends without a word.
        drop(dying);
        assert_eq!(message(&mut watcher).await.3, "gone");
    });
}

#[test]
fn a_session_that_waits() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    run(async {
        let mut buffers = [AllocBuffer, AllocBuffer];
        let [mut sleeper, mut publisher]: [Device<'_>; 2] = buffers.each_mut().map(Client::new);
        let minute = SessionExpiryInterval::Seconds(NonZero::new(60).unwrap());
        let options = ConnectOptions::new().session_expiry_interval(minute);
        let connected = sleeper.connect(net(&broker, &tls).await, &options, Some(string("sleeper"))).await.unwrap();
        assert!(!connected.session_present);
        subscribe(&mut sleeper, "q").await;
        sleeper.disconnect(&DisconnectOptions::new()).await.unwrap();
        let clean = ConnectOptions::new().clean_start();
        publisher.connect(net(&broker, &tls).await, &clean, Some(string("p"))).await.unwrap();
        for (qos, payload) in [(QoS::AtLeastOnce, "one"), (QoS::ExactlyOnce, "two"), (QoS::AtLeastOnce, "three")] {
            publish(&mut publisher, "q", qos, false, payload).await;
        }
        let connected = sleeper.connect(net(&broker, &tls).await, &options, Some(string("sleeper"))).await.unwrap();
        assert!(connected.session_present);
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(message(&mut sleeper).await.3);
        }
        assert_eq!(heard, ["one", "two", "three"]);
    });
}
