//! Asks the local lb for the clients of all others.
//!
//! ```text
//! {"request":"clients"}
//!
//! {"rate":5000,"peers":[{"name":"lb1","clients":2, ...}]}
//! [["10.1.0.7",40007,"10.0.0.100",9000],["10.1.0.8",40008,"10.0.0.100",9000]]     client, then what it is connected to
//! {"end":true}
//! ```

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::tickle::Connection;

const REQUEST: &[u8] = b"{\"request\":\"clients\"}\n";
/// For each read: the lb is on this machine, and answers everyone.
const PATIENCE: Duration = Duration::from_millis(500);
/// Several times what the lb puts into one line.
const LONGEST_LINE: u64 = 256 * 1024;
/// More than any lb has: 30 bytes a line each.
const MAX_CONNECTIONS: usize = 1_000_000;

/// What the lb knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clients {
    /// How many may be told in a second.
    pub(super) rate: u32,
    /// The other lbs, with the number of their clients.
    pub(super) peers: Vec<Peer>,
    /// All of their clients.
    pub(super) connections: Vec<Connection>,
}

/// Another lb.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Peer {
    name: String,
    clients: usize,
}

/// Why the lb does not say.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("the local lb does not answer: {0}")]
    Unreachable(#[from] io::Error),
    #[error(
        "the local lb answers something else than a list of clients ({0}); bring both programs to the same release"
    )]
    Answer(String),
}

#[derive(Deserialize)]
struct Header {
    rate: u32,
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Chunk(Vec<(IpAddr, u16, IpAddr, u16)>),
    End { end: bool },
}

impl Clients {
    /// The hosts that have clients.
    pub(super) fn hosts(&self) -> String {
        let names = self.peers.iter().filter(|peer| peer.clients > 0).map(|peer| peer.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Asks; waits for at most [`PATIENCE`] for each piece of the answer.
///
/// # Errors
/// Nobody answers, or with something else.
pub(super) fn ask(lb_socket: &Path) -> Result<Clients, AskError> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A frozen lb with a full queue refuses, instead of keeping this thread.
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(lb_socket)?)?;
    socket.set_nonblocking(false)?;
    let mut stream = UnixStream::from(OwnedFd::from(socket));
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    read(BufReader::new(stream))
}

fn read(mut input: impl BufRead) -> Result<Clients, AskError> {
    let mut line = Vec::new();
    let Header { rate, peers } = next(&mut input, &mut line)?;
    let mut clients = Clients { rate, peers, connections: Vec::new() };
    loop {
        match next(&mut input, &mut line)? {
            Line::End { end: true } => return Ok(clients),
            Line::End { end: false } => return Err(AskError::Answer("no end".to_owned())),
            Line::Chunk(chunk) => clients.connections.extend(chunk.into_iter().map(|(client, port, vip, vip_port)| {
                Connection { client: SocketAddr::new(client, port), vip: SocketAddr::new(vip, vip_port) }
            })),
        }
        if clients.connections.len() > MAX_CONNECTIONS {
            return Err(AskError::Answer(format!("more than {MAX_CONNECTIONS} clients")));
        }
    }
}

fn next<T: for<'a> Deserialize<'a>>(input: &mut impl BufRead, line: &mut Vec<u8>) -> Result<T, AskError> {
    line.clear();
    input.by_ref().take(LONGEST_LINE).read_until(b'\n', line)?;
    if line.last() != Some(&b'\n') {
        return Err(AskError::Unreachable(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(line).map_err(|error| AskError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        r#"{"rate":5000,"peers":[{"name":"lb1","clients":2,"sending":true},{"name":"lb3","clients":0}]}"#;
    const CHUNK: &str = r#"[["10.1.0.7",40007,"10.0.0.100",9000],["2001:db8::7",40008,"2001:db8::100",9000]]"#;
    const END: &str = r#"{"end":true}"#;

    fn answer(lines: &[&str]) -> Result<Clients, AskError> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        read(text.as_bytes())
    }

    #[test]
    fn a_whole_answer_is_read() {
        let clients = answer(&[HEADER, CHUNK, CHUNK, END]).unwrap();
        assert_eq!((clients.rate, clients.hosts().as_str(), clients.connections.len()), (5000, "lb1", 4));
        let expected = ["10.1.0.7:40007", "10.0.0.100:9000", "[2001:db8::7]:40008", "[2001:db8::100]:9000"];
        let [c0, v0, c1, v1] = expected.map(|address| address.parse().unwrap());
        assert_eq!(clients.connections[..2], [Connection { client: c0, vip: v0 }, Connection { client: c1, vip: v1 }]);
        assert_eq!(answer(&[HEADER, END]).unwrap().connections, []);
    }

    #[test]
    fn half_an_answer_and_other_answers_are_none() {
        for lines in [
            &[][..],
            &[HEADER],
            &[HEADER, CHUNK],
            &[r#"{"error":"unknown request \"clients\""}"#],
            &[CHUNK, END],
            &[HEADER, r#"{"end":false}"#],
            &[HEADER, r#"[["10.1.0.7",400070,"10.0.0.100",9000]]"#, END],
        ] {
            assert!(answer(lines).is_err(), "{lines:?}");
        }
        let endless = std::io::repeat(b'x').take(10 * LONGEST_LINE);
        assert!(read(BufReader::new(endless)).is_err());
    }
}
