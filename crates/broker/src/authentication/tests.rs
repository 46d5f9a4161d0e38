use std::time::Duration;

use evermq_mqtt::packet::{ConnAck, Disconnect};
use tokio::io::DuplexStream;

use super::*;
use crate::auth;
use crate::auth::introduction::{Introduction, introduce};
use crate::auth::verify::Turn;
use crate::broker::Broker;
use crate::broker::tests::{broker, connect};
use crate::connection::{Connection, clock};
use crate::listener::door::Versions;

/// Asks the client to say "please" twice.
#[derive(Debug)]
struct Polite(Text);

#[derive(Debug, Default)]
struct Asking {
    asked: bool,
}

impl Mechanism for Polite {
    fn name(&self) -> &Text {
        &self.0
    }

    fn begin(&self) -> Box<dyn Exchange> {
        Box::<Asking>::default()
    }
}

impl Exchange for Asking {
    fn handle_data(&mut self, data: Option<&Bytes>) -> Answer {
        match data.map(|data| &data[..]) {
            Some(b"please") if self.asked => Answer::Accept("anna".into(), Some(Bytes::from_static(b"welcome"))),
            Some(b"it is bob") if self.asked => Answer::Accept("bob".into(), None),
            Some(b"please") => {
                self.asked = true;
                Answer::Continue(Some(Bytes::from_static(b"again")))
            }
            _ => Answer::Refuse,
        }
    }
}

fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

fn auth(reason: ReasonCode, method: &str, data: &'static str) -> Auth {
    let properties = AuthProperties {
        authentication_method: Some(text(method)),
        authentication_data: Some(Bytes::from_static(data.as_bytes())),
        ..AuthProperties::default()
    };
    Auth { reason, properties }
}

/// A client over a pipe, and what a listener does with it.
struct Client {
    stream: DuplexStream,
    received: BytesMut,
}

impl Client {
    fn new(broker: &Arc<Broker>) -> Self {
        let (stream, mut server) = tokio::io::duplex(1 << 16);
        let broker = Arc::clone(broker);
        tokio::spawn(async move {
            let (connect, mut unread) = crate::admission::read_connect(&mut server, 1 << 16).await.unwrap();
            let client = auth::Client::local();
            let from_it = (&mut server, &mut unread);
            let introduced = introduce(from_it, &connect, &client, Versions::ALL, &broker, &Turn::FREE).await;
            let Introduction { login, authenticated } = match introduced {
                Ok(introduction) => introduction,
                Err(error) => {
                    if let Some(reason) = error.reason() {
                        crate::admission::refuse(&mut server, Version::V5, None, reason).await.unwrap();
                    }
                    return;
                }
            };
            let accepted = broker.connect_as(connect, &client, login, authenticated, clock()).unwrap();
            Connection::new(server, broker, Version::V5, accepted, unread).await;
        });
        Self { stream, received: BytesMut::new() }
    }

    async fn send(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        codec::encode(&packet, Version::V5, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    async fn connect(&mut self, data: &'static str) {
        let mut asked = connect("c");
        asked.properties.authentication_method = Some(text("POLITE"));
        asked.properties.authentication_data = Some(Bytes::from_static(data.as_bytes()));
        self.send(Packet::Connect(Box::new(asked))).await;
    }

    async fn receive(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = codec::decode(&mut self.received, Version::V5, &codec::Limits::default()).unwrap() {
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.received).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn connack(&mut self) -> ConnAck {
        match self.receive().await {
            Some(Packet::ConnAck(connack)) => *connack,
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// Authenticated, CONNACK taken.
    async fn let_in(broker: &Arc<Broker>) -> Self {
        let mut client = Self::new(broker);
        client.connect("please").await;
        let asked = auth(ReasonCode::ContinueAuthentication, "POLITE", "again");
        assert_eq!(client.receive().await, Some(Packet::Auth(asked)));
        client.send(Packet::Auth(auth(ReasonCode::ContinueAuthentication, "POLITE", "please"))).await;
        let connack = client.connack().await;
        assert_eq!(connack.reason, ReasonCode::Success);
        assert_eq!(connack.properties.authentication_method, Some(text("POLITE")));
        assert_eq!(connack.properties.authentication_data, Some(Bytes::from_static(b"welcome")));
        client
    }

    async fn closed_with(&mut self, reason: ReasonCode) {
        match self.receive().await {
            Some(Packet::Disconnect(Disconnect { reason: got, .. })) => assert_eq!(got, reason),
            other => panic!("no DISCONNECT: {other:?}"),
        }
        assert_eq!(self.receive().await, None);
    }
}

fn polite() -> Arc<Broker> {
    let (broker, _) = broker();
    broker.mechanisms.offer(Arc::new(Polite(text("POLITE"))));
    broker
}

#[tokio::test(start_paused = true)]
async fn an_exchange_before_connack_and_one_after_it() {
    let broker = polite();
    let mut client = Client::let_in(&broker).await;
    for _ in 0..2 {
        client.send(Packet::Auth(auth(ReasonCode::ReAuthenticate, "POLITE", "please"))).await;
        let asked = auth(ReasonCode::ContinueAuthentication, "POLITE", "again");
        assert_eq!(client.receive().await, Some(Packet::Auth(asked)));
        // §4.12.1: everything else goes on meanwhile.
        client.send(Packet::PingReq).await;
        assert_eq!(client.receive().await, Some(Packet::PingResp));
        client.send(Packet::Auth(auth(ReasonCode::ContinueAuthentication, "POLITE", "please"))).await;
        assert_eq!(client.receive().await, Some(Packet::Auth(auth(ReasonCode::Success, "POLITE", "welcome"))));
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_authenticated_is_that_user_and_stays_it() {
    let broker = polite();
    let mut client = Client::let_in(&broker).await;
    let session = broker.registry.get(&text("c")).unwrap();
    assert_eq!(session.lock().session.user().map(AsRef::as_ref), Some("anna"));
    assert_eq!(session.lock().session.login().and_then(|login| login.user.as_deref()), Some("anna"));

    client.send(Packet::Auth(auth(ReasonCode::ReAuthenticate, "POLITE", "please"))).await;
    assert!(matches!(client.receive().await, Some(Packet::Auth(_))));
    client.send(Packet::Auth(auth(ReasonCode::ContinueAuthentication, "POLITE", "it is bob"))).await;
    client.closed_with(ReasonCode::NotAuthorized).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fails_is_refused() {
    let broker = polite();
    let mut client = Client::new(&broker);
    client.connect("open up").await;
    assert_eq!(client.connack().await.reason, ReasonCode::NotAuthorized);
    assert_eq!(client.receive().await, None);

    let mut client = Client::let_in(&broker).await;
    client.send(Packet::Auth(auth(ReasonCode::ReAuthenticate, "POLITE", "open up"))).await;
    client.closed_with(ReasonCode::NotAuthorized).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_not_come_before_connack() {
    let broker = polite();
    for packet in [
        Packet::PingReq,
        Packet::Auth(auth(ReasonCode::ReAuthenticate, "POLITE", "please")),
        Packet::Auth(auth(ReasonCode::ContinueAuthentication, "RUDE", "please")),
        Packet::Auth(auth(ReasonCode::Success, "POLITE", "please")),
    ] {
        let mut client = Client::new(&broker);
        client.connect("please").await;
        assert!(matches!(client.receive().await, Some(Packet::Auth(_))));
        client.send(packet.clone()).await;
        assert_eq!(client.connack().await.reason, ReasonCode::ProtocolError, "{packet:?}");
        assert_eq!(client.receive().await, None);
    }
    let mut client = Client::new(&broker);
    client.connect("please").await;
    assert!(matches!(client.receive().await, Some(Packet::Auth(_))));
    client.send(Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None })).await;
    assert_eq!(client.receive().await, None, "it has left, so it is told nothing");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_come_after_connack() {
    let broker = polite();
    for wrong in [
        auth(ReasonCode::ContinueAuthentication, "POLITE", "please"),
        auth(ReasonCode::ReAuthenticate, "RUDE", "please"),
    ] {
        let mut client = Client::let_in(&broker).await;
        client.send(Packet::Auth(wrong)).await;
        client.closed_with(ReasonCode::ProtocolError).await;
    }
    let mut client = Client::let_in(&broker).await;
    client.send(Packet::Auth(auth(ReasonCode::ReAuthenticate, "POLITE", "please"))).await;
    assert!(matches!(client.receive().await, Some(Packet::Auth(_))));
    client.send(Packet::Auth(auth(ReasonCode::ReAuthenticate, "POLITE", "please"))).await;
    client.closed_with(ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_offered() {
    let (broker, _) = broker();
    let mut client = Client::new(&broker);
    client.connect("please").await;
    assert_eq!(client.connack().await.reason, ReasonCode::BadAuthenticationMethod);
    assert_eq!(client.receive().await, None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(broker.sessions().0, 0);
}
