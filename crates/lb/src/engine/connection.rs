//! One client's connection: what a worker keeps of it.
//!
//! ```text
//!   accepted ─▶ Greeting ─▶ [Waiting] ─▶ Connecting ─▶ [Securing] ─▶ Relaying ─▶ gone
//!                                            │  ▲
//!                                            ▼  │ this system lacks something
//!                                          Pausing
//! ```
//!
//! There is one of these for each connection, idle ones too, so it is small: what is needed for a part of its life only is
//! in a box for that long.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use evermq_mqtt::Version;

use super::ended::Why;
use super::flow::Flow;
use super::handshakes::Spot;
use super::secure::Secure;
use super::splice::Pipe;
use crate::pool::{Admin, GroupId, Lease};
use crate::sources::SourcePlace;
pub(crate) use crate::waiting::Ticket;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The client is to say what it wants.
    Greeting,
    /// Each backend that would do is at one of its bounds: it waits in the lobby.
    Waiting,
    /// A connection to a backend is being made.
    Connecting,
    /// TLS with the backend is being made.
    Securing,
    /// Descriptors, ports or memory are short: a backend is looked for again after a pause.
    Pausing,
    /// Bytes go both ways.
    Relaying,
}

impl Phase {
    /// As operators read it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Securing => "securing",
            Self::Pausing => "pausing",
            Self::Relaying => "relaying",
        }
    }
}

/// What becomes of a connection after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits for what epoll or time brings.
    Waits,
    /// There is more to do, but others come first.
    Again,
    /// It ends.
    Ends(Why),
}

/// Which socket of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) client: OwnedFd,
    pub(crate) backend: Option<OwnedFd>,
    pub(crate) to_backend: Way,
    pub(crate) to_client: Way,
    pub(crate) lease: Option<Lease>,
    /// Where TLS ends here.
    pub(crate) secure: Option<Box<Secure>>,
    /// It counts among those of its address.
    pub(crate) place: Option<SourcePlace>,
    /// What is known of it until bytes go both ways.
    pub(crate) opening: Option<Box<Opening>>,
    /// What it has said of itself, if anything.
    pub(crate) details: Option<Box<Details>>,
    /// The client's address; as a balancer before this one says, where there is one.
    pub(crate) from: SocketAddr,
    pub(crate) accepted: Instant,
    pub(crate) greeted: Mark,
    pub(crate) placed: Mark,
    pub(crate) connected: Mark,
    pub(crate) handshaken: Mark,
    /// The tick of the last byte.
    pub(crate) active: u32,
    /// What the other lbs know it by.
    pub(crate) number: Option<NonZeroU32>,
    pub(crate) generation: u32,
    pub(crate) listener: u16,
    pub(crate) phase: Phase,
    pub(crate) turns: Turns,
    /// Why the first side that failed did.
    pub(crate) failed: Option<Why>,
    /// The side that ended first.
    pub(crate) first_ended: Option<Side>,
    /// Epoll tells when the client takes more; it is asked only once the client has not.
    pub(crate) client_asked: bool,
    /// A balancer before this one has yet to say whom it speaks for.
    pub(crate) awaits_header: bool,
    pub(crate) queued: bool,
    /// Another process would not have it.
    pub(crate) stays: bool,
}

/// One direction, and what is held of it.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) flow: Flow,
    pub(crate) held: Held,
}

/// What has been read and not yet taken.
#[derive(Debug)]
pub(crate) enum Held {
    Nothing,
    Bytes(Box<Bytes>),
    Pipe(Box<Pipe>),
}

/// Bytes, of which some are gone.
#[derive(Debug)]
pub(crate) struct Bytes {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) gone: usize,
}

/// What a client has said of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    /// The name that it asked for.
    pub(crate) sni: Option<Box<str>>,
    /// Its MQTT client identifier, where the lb sees it.
    pub(crate) client_id: Option<Box<[u8]>>,
    /// The version of MQTT that it speaks, likewise.
    pub(crate) version: Option<Version>,
}

/// A connection that has not reached a backend.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    /// What the client has sent, to be sent on.
    pub(crate) bytes: Vec<u8>,
    /// Where it goes.
    pub(crate) group: Option<GroupId>,
    /// The address that it has connected to, where a balancer before this one says so.
    pub(crate) destination: Option<SocketAddr>,
    /// What that balancer calls the connection.
    pub(crate) unique_id: Option<Box<[u8]>>,
    /// Backends that were tried.
    pub(crate) tried: Vec<usize>,
    /// Those of them whose own doing it was; the others are worth another try.
    pub(crate) refused: Vec<usize>,
    /// Its place in the lobby.
    pub(crate) ticket: Option<Ticket>,
    /// What this system lacks, and until when it is waited for.
    pub(crate) shortage: Option<(std::io::Error, Instant)>,
    /// Its place among the TLS handshakes.
    pub(crate) spot: Option<Spot>,
}

/// A moment, as microseconds since the connection was accepted; 71 minutes at most, which is far beyond any timeout before
/// bytes go both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark(Option<NonZeroU32>);

impl Mark {
    pub(crate) fn at(accepted: Instant, now: Instant) -> Self {
        let micros = u32::try_from(now.saturating_duration_since(accepted).as_micros()).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(micros.max(1)))
    }

    pub(crate) fn elapsed(self) -> Option<Duration> {
        self.0.map(|micros| Duration::from_micros(micros.get().into()))
    }
}

/// How often the two sides have taken turns: TLS is through when the backend has answered the client's second flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turns(u8);

impl Turns {
    const THROUGH: u8 = 4;

    /// So many, as another process has counted them; all where it does not say.
    pub(crate) fn of(count: Option<u8>) -> Self {
        Self(count.unwrap_or(Self::THROUGH).min(Self::THROUGH))
    }

    /// How many there have been.
    pub(crate) const fn count(self) -> u8 {
        self.0
    }
    /// For a backend that gets plain MQTT: its first answer, CONNACK, is all.
    pub(crate) const PLAIN: Self = Self(2);

    /// Bytes went to `sink`. Whether that completes the handshake.
    pub(crate) const fn handle_moved(&mut self, sink: Side) -> bool {
        let expected = match self.0 % 2 {
            0 => matches!(sink, Side::Backend),
            _ => matches!(sink, Side::Client),
        };
        if expected && self.0 < Self::THROUGH {
            self.0 += 1;
            return self.0 == Self::THROUGH;
        }
        false
    }
}

impl Way {
    const fn new() -> Self {
        Self { flow: Flow::new(), held: Held::Nothing }
    }
}

impl Connection {
    /// A client that was just accepted.
    pub(crate) fn new(
        client: OwnedFd,
        from: SocketAddr,
        listener: u16,
        id: u64,
        generation: u32,
        now: Instant,
    ) -> Self {
        Self {
            id,
            client,
            backend: None,
            to_backend: Way::new(),
            to_client: Way::new(),
            lease: None,
            secure: None,
            place: None,
            opening: None,
            details: None,
            from,
            accepted: now,
            greeted: Mark::default(),
            placed: Mark::default(),
            connected: Mark::default(),
            handshaken: Mark::default(),
            active: 0,
            number: None,
            generation,
            listener,
            phase: Phase::Greeting,
            turns: Turns::default(),
            failed: None,
            first_ended: None,
            client_asked: false,
            awaits_header: false,
            queued: false,
            stays: false,
        }
    }

    /// The client has said what it wants.
    pub(crate) fn mark_greeted(&mut self, now: Instant) {
        self.greeted = Mark::at(self.accepted, now);
    }

    /// Why its backend's connections are closed.
    pub(crate) fn why_stale(&self) -> Why {
        match self.lease.as_ref().map(|lease| lease.member().admin()) {
            Some(Admin::Maint) => Why::Maintenance,
            Some(Admin::Ready | Admin::Drain) | None => Why::BackendDown,
        }
    }

    /// What is known of it until bytes go both ways.
    pub(crate) fn opening(&mut self) -> &mut Opening {
        self.opening.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 256, "{}", size_of::<Connection>());
    }

    #[test]
    fn a_handshake_is_through_when_the_second_flight_was_answered() {
        use Side::{Backend, Client};
        let mut turns = Turns::default();
        let moves = [Client, Backend, Backend, Client, Client, Backend, Backend, Client, Backend, Client];
        let through: Vec<_> = moves.map(|sink| turns.handle_moved(sink)).into_iter().collect();
        assert_eq!(through.iter().position(|&through| through), Some(7));
        assert_eq!(through.iter().filter(|&&through| through).count(), 1);
    }

    #[test]
    fn without_tls_the_first_answer_is_all() {
        let mut turns = Turns::PLAIN;
        let moves = [Side::Backend, Side::Backend, Side::Client, Side::Backend, Side::Client];
        assert_eq!(moves.map(|sink| turns.handle_moved(sink)), [false, false, true, false, false]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    fn a_mark_is_there_even_if_no_time_has_passed() {
        let now = Instant::now();
        assert_eq!(Mark::default().elapsed(), None);
        assert_eq!(Mark::at(now, now).elapsed(), Some(Duration::from_micros(1)));
        assert_eq!(Mark::at(now, now + Duration::from_millis(3)).elapsed(), Some(Duration::from_millis(3)));
        assert!(Mark::at(now, now + Duration::from_secs(10_000)).elapsed().unwrap() > Duration::from_secs(4000));
    }
}
