//! What the access log keeps of a connection that has ended.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evermq_config::lb::Mode;

use crate::engine::ended::{Begun, Ended, Why};

/// A connection that has ended, without anything that is borrowed.
#[derive(Debug, Clone)]
pub struct Record {
    pub(super) id: u64,
    pub(super) client: SocketAddr,
    pub(super) listener: Box<str>,
    pub(super) mode: Mode,
    pub(super) sni: Option<Box<str>>,
    pub(super) client_id: Option<Box<str>>,
    pub(super) backend: Option<Box<str>>,
    pub(super) why: Why,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) times: Times,
    pub(super) ended: Instant,
    pub(super) tls_version: Option<&'static str>,
    pub(super) tls_resumed: bool,
    pub(super) common_name: Option<Box<str>>,
}

/// How long each part took; none for one that was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Until the client had said what it wants.
    pub(crate) greeting: Option<Duration>,
    /// From there until a backend was chosen.
    pub(crate) queue: Option<Duration>,
    /// From there until the backend had taken the connection.
    pub(crate) connect: Option<Duration>,
    /// From there until the handshake was over.
    pub(crate) handshake: Option<Duration>,
    /// All of it.
    pub(crate) total: Duration,
}

impl Record {
    pub(crate) fn of(ended: &Ended<'_>) -> Self {
        Self {
            id: ended.id,
            client: ended.client,
            listener: ended.listener_name.into(),
            mode: ended.mode,
            sni: ended.sni.map(Into::into),
            client_id: ended.client_id.map(Into::into),
            backend: ended.backend.map(|member| member.name().into()),
            why: ended.why,
            bytes_in: ended.to_backend,
            bytes_out: ended.to_client,
            times: Times::of(ended),
            ended: ended.ended,
            tls_version: ended.tls_version,
            tls_resumed: ended.tls_resumed,
            common_name: ended.common_name.map(Into::into),
        }
    }
}

impl Times {
    /// Of one that has ended.
    pub(crate) fn of(ended: &Ended<'_>) -> Self {
        let total = ended.ended.saturating_duration_since(ended.accepted);
        Self::between([ended.greeted, ended.placed, ended.connected, ended.handshaken], total)
    }

    /// Of one whose handshake is through.
    pub(crate) fn of_begun(begun: &Begun<'_>) -> Self {
        let marks = [begun.greeted, begun.placed, begun.connected, begun.handshaken];
        Self::between(marks, begun.handshaken.unwrap_or_default())
    }

    fn between([greeted, placed, connected, handshaken]: [Option<Duration>; 4], total: Duration) -> Self {
        let between = |from: Option<Duration>, to: Option<Duration>| Some(to?.saturating_sub(from?));
        Self {
            greeting: greeted,
            queue: between(greeted, placed),
            connect: between(placed, connected),
            handshake: between(connected, handshaken),
            total,
        }
    }
}

/// One that tests can change.
#[cfg(test)]
pub(crate) fn example() -> Ended<'static> {
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    let start = Instant::now();
    let at = |micros| Some(Duration::from_micros(micros));
    Ended {
        id: 7,
        listener: 0,
        listener_name: "main",
        mode: Mode::Passthrough,
        client: "192.0.2.1:40000".parse().unwrap(),
        sni: Some("mqtt.example.org"),
        client_id: None,
        backend: None,
        why: Why::ClientClosed,
        to_backend: 100,
        to_client: 2000,
        accepted: start,
        ended: start + Duration::from_secs(60),
        greeted: at(1_500),
        placed: at(1_501),
        connected: at(2_000),
        handshaken: at(12_000),
        tls_version: None,
        tls_resumed: false,
        common_name: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_what_was_not_reached_took_no_time() {
        let times = Times::of(&example());
        let parts = [times.greeting, times.queue, times.connect, times.handshake];
        assert_eq!(parts.into_iter().flatten().sum::<Duration>(), Duration::from_millis(12));
        let early = Ended { greeted: None, placed: None, connected: None, handshaken: None, ..example() };
        let times = Times::of(&early);
        assert_eq!((times.greeting, times.queue, times.connect, times.handshake), (None, None, None, None));
        assert_eq!(times.total, Duration::from_secs(60));
    }
}
