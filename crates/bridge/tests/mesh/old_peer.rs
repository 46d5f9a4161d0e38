//! A broker of version 1.0 of the protocol, byte by byte: it knows nothing of claims.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use evermq_bridge::{Claim, Clients};
use evermq_config::BrokerConfig;
use evermq_daemon::tls::{self, Material};
use evermq_mqtt::codec;
use evermq_mqtt::{Packet, PacketId, Publish, Text, Version};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::broker::{Broker, wait_until};
use crate::cluster::Cluster;

/// Whoever asks who is connected.
struct OneClient(Claim);

impl Clients for OneClient {
    fn connected(&self) -> Vec<Claim> {
        vec![self.0.clone()]
    }

    fn claimed(&self, claim: &Claim, _me: &str) -> bool {
        panic!("who knows of claims here? {claim:?}");
    }
}

/// Frames over a connection.
struct Frames<S>(S);

impl<S: Read + Write> Frames<S> {
    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut out = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        out.push(kind);
        out.extend_from_slice(body);
        self.0.write_all(&out).unwrap();
        self.0.flush().unwrap();
    }

    /// The next one that is no sign of life.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        loop {
            let mut header = [0; 5];
            self.0.read_exact(&mut header).unwrap();
            let mut body = vec![0; u32::from_be_bytes(header[..4].try_into().unwrap()) as usize];
            self.0.read_exact(&mut body).unwrap();
            match header[4] {
                9 => self.send(10, &[]),
                10 => {}
                kind => return (kind, body),
            }
        }
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn accept(listener: &TcpListener, config: &BrokerConfig) -> Frames<StreamOwned<ServerConnection, TcpStream>> {
    listener.set_nonblocking(false).unwrap();
    let stream = patient(listener.accept().unwrap().0);
    let tls = Material::load(&config.tls).unwrap().server_config().unwrap();
    Frames(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream))
}

fn connect(config: &BrokerConfig) -> Frames<StreamOwned<ClientConnection, TcpStream>> {
    let peer = &config.peers[0];
    let stream = patient(TcpStream::connect(peer.address).unwrap());
    let tls = Material::load(&config.tls).unwrap().client_config_for(&peer.name, peer.address.ip()).unwrap();
    Frames(StreamOwned::new(ClientConnection::new(tls, tls::server_name(&peer.name)).unwrap(), stream))
}

#[test]
fn a_broker_of_version_1_0_is_understood_and_not_told_of_clients() {
    let (cluster, mut listeners) = Cluster::new(2);
    let old = listeners.remove(1);
    let config = cluster.config(1);
    let new = Broker::start_on(listeners.remove(0), &cluster.config(0));
    let client_id = Text::new("client").unwrap();
    let claim = Claim { client_id, user: None, stamp: new.bridge.next_stamp(), clean_start: false };
    new.bridge.set_clients(Arc::new(OneClient(claim.clone())));

    // What the new one sends: HELLO, and then nothing that 1.0 does not know.
    let mut from_new = accept(&old, &config);
    let (kind, hello) = from_new.receive();
    assert_eq!((kind, &hello[..7]), (1, &b"EvMQ\x01\x01\x03"[..]), "version 1, minor 3");
    from_new.send(2, b"\x01\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\x01\0\0");
    assert_eq!(from_new.receive(), (5, vec![0; 8]), "the end of an empty snapshot");
    wait_until("it is connected", || new.peer("broker2").connected);
    new.bridge.claim(claim);
    new.publish_many("", 1);
    assert_eq!(from_new.receive().0, 3, "the message, and no claim before it");
    from_new.send(8, &1_u64.to_be_bytes());
    wait_until("it is acknowledged", || new.peer("broker2").acknowledged == 1);

    // What it takes: HELLO of minor 0, an empty snapshot, a message.
    let mut to_new = connect(&config);
    to_new.send(1, b"EvMQ\x01\x01\0\0\0\0\0\0\0\0\x09\x04home\x07broker2");
    let (kind, welcome) = to_new.receive();
    assert_eq!((kind, &welcome[..2]), (2, &[1, 3][..]), "version 1, and its own minor");
    to_new.send(5, &[0; 8]);
    let publish = Publish {
        packet_id: Some(PacketId(std::num::NonZeroU16::MIN)),
        ..new.message("t", "of the old one", false).publish.clone()
    };
    let mut entry = BytesMut::from(&[&1_u64.to_be_bytes()[..], &[0; 8], &7_u64.to_be_bytes()].concat()[..]);
    codec::encode(&Packet::Publish(publish), Version::V5, &mut entry).unwrap();
    to_new.send(3, &entry);
    // The snapshot's end may be acknowledged by itself.
    let acknowledged = std::iter::repeat_with(|| to_new.receive()).find(|frame| *frame != (8, vec![0; 8]));
    assert_eq!(acknowledged, Some((8, 1_u64.to_be_bytes().to_vec())));
    assert_eq!(new.payloads(), ["of the old one"]);
}
