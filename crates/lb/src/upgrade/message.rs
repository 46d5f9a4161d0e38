//! What the two processes of an upgrade say to each other.
//!
//! | from | message | descriptors |
//! |---|---|---|
//! | new | [`Hello`]: which versions it speaks | |
//! | old | [`Offer`]: every socket that listens, and which backends are up | those sockets' |
//! | new | `Ready`, or `Refused` with the reason | |
//! | old | [`Begin`]: from now on the new one is in charge | control connections' |
//! | new | `Began` | |
//! | old | [`Batch`]: connections | a client's and its backend's, for each |
//! | new | [`Took`]: whose they are now | |
//! | old | `Settled`: all that can be moved has been | |
//!
//! `Began` and `Took` are the deeds: what was handed over belongs to the new process from the moment that it has written them,
//! and to the old one where it ended before. Members that a version does not know are ignored, those that are missing have
//! a meaning; a change that is more than that is a new version of the protocol.
//!
//! Pure.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The version of the protocol that this program speaks best.
pub const VERSION: u32 = 1;
/// The oldest one that it still speaks.
pub const OLDEST: u32 = 1;

/// Any message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// The new process is there.
    Hello(Hello),
    /// What there is to take over.
    Offer(Offer),
    /// The new process could serve now.
    Ready,
    /// The new process will not.
    Refused {
        /// Why.
        reason: String,
    },
    /// The new process is in charge now.
    Begin(Begin),
    /// It is.
    Began,
    /// Connections.
    Batch(Batch),
    /// They are the new process's.
    Took(Took),
    /// What is left ends with the old process, or comes by and by.
    Settled,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// Who starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version of the protocol that it speaks.
    pub oldest: u32,
    /// The newest one.
    pub newest: u32,
    /// The version of the program.
    pub program: String,
}

impl Hello {
    /// This program's.
    #[must_use]
    pub fn ours() -> Self {
        Self { oldest: OLDEST, newest: VERSION, program: evermq_daemon::command::VERSION.to_owned() }
    }

    /// The newest version that both speak.
    #[must_use]
    pub fn common(&self) -> Option<u32> {
        let version = self.newest.min(VERSION);
        (version >= self.oldest && version >= OLDEST).then_some(version)
    }
}

/// What there is to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The version of the protocol that is spoken from here on.
    pub version: u32,
    /// Sockets, in the order of their descriptors.
    pub sockets: Vec<Socket>,
    /// Backends that are up, by name: the new process waits until they are for it, too.
    #[serde(default)]
    pub up: Vec<String>,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Socket {
    /// Clients connect there.
    Clients {
        /// The listener's name.
        name: String,
        /// Where it listens.
        address: SocketAddr,
    },
    /// The control socket.
    Control {
        /// Its path.
        path: String,
    },
    /// The other lbs connect there.
    Peers {
        /// Where it listens.
        address: SocketAddr,
    },
    /// Prometheus asks there.
    Metrics {
        /// Where it listens.
        address: SocketAddr,
    },
    /// Of a later version: it is closed.
    #[serde(other)]
    Unknown,
}

/// The new process is in charge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Who is connected to the control socket, in the order of their descriptors.
    #[serde(default)]
    pub control: Vec<ControlClient>,
    /// What operators have said of backends.
    #[serde(default)]
    pub words: Vec<Word>,
}

/// What operators have said of one backend, last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Its name.
    pub backend: String,
    /// What it is to do, by name.
    pub state: String,
    /// Connections that a drain moves in a second.
    #[serde(default)]
    pub rate: Option<u32>,
    /// Its weight, where that is not the file's.
    #[serde(default)]
    pub weight: Option<u16>,
    /// When it was said.
    pub time: u64,
    /// Where.
    pub host: String,
}

/// A connection to the control socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlClient {
    /// It watches the health.
    #[serde(default)]
    pub watches: bool,
    /// Raw bytes of its request.
    #[serde(default)]
    pub received: usize,
    /// Raw bytes of a line that is still to go.
    #[serde(default)]
    pub unsent: usize,
}

/// Connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number.
    pub batch: u64,
    /// In the order of their descriptors: the client's, then the backend's.
    pub connections: Vec<Record>,
}

/// Whose the connections of a batch are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// The batch.
    pub batch: u64,
    /// Those of its connections that stay with the old process.
    #[serde(default)]
    pub refused: Vec<RefusedConnection>,
}

/// A connection that the new process cannot take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConnection {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub reason: String,
}

/// One connection that relays: everything about it but its two sockets and the bytes that are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The listener's name.
    pub listener: String,
    /// How it relays: `passthrough` or `plain`.
    pub mode: String,
    /// Who the client is.
    pub client: SocketAddr,
    /// What the client has connected to.
    pub local: SocketAddr,
    /// The backend's name.
    pub backend: String,
    /// Where the backend is connected to.
    pub backend_address: SocketAddr,
    /// The connection's number.
    pub id: u64,
    /// The name that the client asked for.
    #[serde(default)]
    pub sni: Option<String>,
    /// The MQTT client identifier.
    #[serde(default)]
    pub client_id: Option<Vec<u8>>,
    /// From the client.
    pub to_backend: Direction,
    /// From the backend.
    pub to_client: Direction,
    /// Which side has failed already, and how.
    #[serde(default)]
    pub failed: Option<String>,
    /// The side that has ended first: `client` or `backend`.
    #[serde(default)]
    pub first_ended: Option<String>,
    /// Turns of the handshake that there have been; none once it is over.
    #[serde(default)]
    pub handshake_turns: Option<u8>,
    /// When things happened.
    #[serde(default)]
    pub ages: Ages,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// What it does.
    #[serde(default)]
    pub state: DirectionState,
    /// Bytes that have gone.
    #[serde(default)]
    pub bytes: u64,
    /// Raw bytes that were read and have not gone.
    #[serde(default)]
    pub kept: usize,
}

/// What a direction does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectionState {
    /// Reads and writes.
    #[default]
    Open,
    /// Nothing more comes; what is kept is still to go, then the end of file.
    Ending,
    /// Nothing more goes.
    Done,
}

/// When things happened, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ages {
    /// Since the client was accepted, at the moment of the export.
    #[serde(default)]
    pub accepted: u64,
    /// From then until it had said who it is.
    #[serde(default)]
    pub greeted: Option<u64>,
    /// From then until a backend was chosen.
    #[serde(default)]
    pub placed: Option<u64>,
    /// From then until the backend was connected.
    #[serde(default)]
    pub connected: Option<u64>,
    /// From then until the handshake was over.
    #[serde(default)]
    pub handshaken: Option<u64>,
    /// Since something moved, at the moment of the export.
    #[serde(default)]
    pub active: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Message {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn versions_are_agreed_on() {
        let hello = |oldest, newest| Hello { oldest, newest, program: "9.9.9".to_owned() };
        assert_eq!(Hello::ours().common(), Some(VERSION));
        assert_eq!(hello(1, 7).common(), Some(VERSION));
        assert_eq!(hello(VERSION + 1, 7).common(), None);
        assert_eq!(hello(0, OLDEST - 1).common(), None);
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let hello = read(json!({ "message": "hello", "oldest": 1, "newest": 3, "program": "2.0.0", "mood": "good" }));
        assert!(matches!(hello, Message::Hello(Hello { newest: 3, .. })));
        assert_eq!(read(json!({ "message": "sing" })), Message::Unknown);
        let offer = read(json!({ "message": "offer", "version": 1, "sockets": [
            { "kind": "quic", "address": "127.0.0.1:1" },
            { "kind": "clients", "name": "main", "address": "127.0.0.1:9000", "more": 1 },
        ] }));
        let Message::Offer(Offer { sockets, up, .. }) = offer else { panic!("{offer:?}") };
        assert_eq!(sockets[0], Socket::Unknown);
        assert!(matches!(sockets[1], Socket::Clients { .. }) && up.is_empty());
    }

    #[test]
    fn what_an_earlier_version_does_not_say_has_a_meaning() {
        let batch = read(json!({ "message": "batch", "batch": 1, "connections": [{
            "id": 5, "listener": "main", "mode": "passthrough", "client": "192.0.2.1:5", "local": "192.0.2.9:9000",
            "backend": "broker1", "backend_address": "192.0.2.7:8883", "to_backend": {}, "to_client": { "state": "done" },
        }] }));
        let Message::Batch(Batch { connections, .. }) = batch else { panic!("{batch:?}") };
        let record = &connections[0];
        assert_eq!(record.to_backend, Direction::default());
        assert_eq!(record.to_client.state, DirectionState::Done);
        assert_eq!((record.handshake_turns, record.ages), (None, Ages::default()));
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let messages = [
            Message::Hello(Hello::ours()),
            Message::Offer(Offer {
                version: 1,
                sockets: vec![Socket::Control { path: "/run/evermq/lb.sock".to_owned() }],
                up: vec!["broker1".to_owned()],
            }),
            Message::Ready,
            Message::Refused { reason: "no".to_owned() },
            Message::Begin(Begin {
                control: vec![ControlClient { watches: true, received: 0, unsent: 3 }],
                words: vec![Word {
                    backend: "broker1".to_owned(),
                    state: "drain".to_owned(),
                    rate: Some(5),
                    weight: None,
                    time: 1,
                    host: "lb1".to_owned(),
                }],
            }),
            Message::Began,
            Message::Took(Took { batch: 7, refused: vec![RefusedConnection { index: 1, reason: "no".to_owned() }] }),
            Message::Settled,
        ];
        for message in messages {
            let text = serde_json::to_vec(&message).unwrap();
            assert_eq!(serde_json::from_slice::<Message>(&text).unwrap(), message);
        }
    }
}
