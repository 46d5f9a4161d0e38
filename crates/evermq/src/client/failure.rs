//! What can go wrong, in words that say what to do, and the exit status.

use std::io;
use std::path::PathBuf;

use evermq_mqtt::codec::{DecodeError, EncodeError};
use evermq_mqtt::{ReasonCode, Version};

/// mosquitto_sub's status where `-W` ran out.
const TIMED_OUT: u8 = 27;
const USAGE: u8 = 2;
const FAILED: u8 = 1;

/// Why a command ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot read standard input: {0}")]
    Input(#[source] io::Error),
    #[error("cannot write standard output: {0}")]
    Output(#[source] io::Error),
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot resolve {host}: {source}; check the name given with -h")]
    Resolve { host: String, source: io::Error },
    #[error("cannot connect to {server}: {}", connect_hint(source))]
    Connect { server: String, source: io::Error },
    #[error("no answer from {server} within {seconds:.1} s; is the host up, and does a firewall let the port through?")]
    NoAnswer { server: String, seconds: f32 },
    /// A handshake that failed for a reason that trying again does not mend.
    #[error("TLS with {server} failed: {text}")]
    Tls { server: String, text: String },
    #[error("{server} refused the connection: {} (code {code})", refusal(*reason))]
    Refused { server: String, reason: ReasonCode, code: u8 },
    #[error("{server} closed the connection before it answered; {hint}")]
    ClosedEarly { server: String, hint: &'static str },
    #[error("{server} answers with TLS; give the CA that signed its certificate with --cafile")]
    SpeaksTls { server: String },
    #[error("{server} does not speak MQTT: {source}; is the port right?")]
    NotMqtt { server: String, source: DecodeError },
    #[error("the connection was closed by the server")]
    Closed,
    #[error("the connection was lost: {0}")]
    Lost(#[source] io::Error),
    #[error("the server did not answer a ping within {0} s")]
    PingTimeout(f32),
    #[error("the server disconnected: {}{}", reason.name(), detail(text.as_deref()))]
    Disconnected { reason: ReasonCode, text: Option<String> },
    #[error("the server sent what MQTT does not allow: {0}")]
    Decode(#[from] DecodeError),
    #[error("the server sent {0}, which does not belong there")]
    Unexpected(&'static str),
    #[error("this cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    #[error("a packet of {size} bytes exceeds the server's limit of {limit}")]
    TooLarge { size: usize, limit: u32 },
    #[error("the server accepts QoS {maximum} at most; lower -q")]
    QoS { maximum: u8 },
    #[error("the server does not keep retained messages; leave out -r")]
    Retain,
    #[error("the server did not accept {count} of the messages: {}{}", reason.name(), detail(text.as_deref()))]
    NotAccepted { count: u64, reason: ReasonCode, text: Option<String> },
    #[error("the server refused every subscription")]
    NotSubscribed,
    #[error("stopped with {unacknowledged} messages not yet acknowledged")]
    Interrupted { unacknowledged: usize },
    #[error("time is up: {seconds} s have passed")]
    TimedOut { seconds: f32 },
}

impl Failure {
    /// Whether a client that was connected may hope that connecting again helps: the server or the way to it is gone.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::NoAnswer { .. }
            | Self::ClosedEarly { .. }
            | Self::Closed
            | Self::Lost(_)
            | Self::PingTimeout(_) => true,
            Self::Refused { reason, .. } => matches!(
                reason,
                ReasonCode::ServerUnavailable
                    | ReasonCode::ServerBusy
                    | ReasonCode::ServerShuttingDown
                    | ReasonCode::ConnectionRateExceeded
                    | ReasonCode::UseAnotherServer
            ),
            // Another client with this identifier would only be driven out in turn.
            Self::Disconnected { reason, .. } => matches!(
                reason,
                ReasonCode::Success
                    | ReasonCode::UnspecifiedError
                    | ReasonCode::ServerBusy
                    | ReasonCode::ServerShuttingDown
                    | ReasonCode::KeepAliveTimeout
                    | ReasonCode::UseAnotherServer
                    | ReasonCode::MaximumConnectTime
                    | ReasonCode::ConnectionRateExceeded
                    | ReasonCode::AdministrativeAction
            ),
            Self::Usage(_)
            | Self::File { .. }
            | Self::Input(_)
            | Self::Output(_)
            | Self::Runtime(_)
            | Self::Tls { .. }
            | Self::SpeaksTls { .. }
            | Self::NotMqtt { .. }
            | Self::Decode(_)
            | Self::Unexpected(_)
            | Self::Encode(_)
            | Self::TooLarge { .. }
            | Self::QoS { .. }
            | Self::Retain
            | Self::NotAccepted { .. }
            | Self::NotSubscribed
            | Self::Interrupted { .. }
            | Self::TimedOut { .. } => false,
        }
    }

    pub(super) fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Refused { code, .. } => *code,
            Self::TimedOut { .. } => TIMED_OUT,
            _ => FAILED,
        }
    }

    pub(super) fn refused(server: String, reason: ReasonCode, version: Version) -> Self {
        let code = if version == Version::V5 { reason as u8 } else { reason.connect_return_code() };
        Self::Refused { server, reason, code }
    }
}

fn connect_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; nothing listens there: check host (-h) and port (-p), and that the server runs"
                .to_owned()
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("{error}; check the address and this host's routes")
        }
        _ => error.to_string(),
    }
}

fn refusal(reason: ReasonCode) -> String {
    let advice = match reason {
        ReasonCode::UnsupportedProtocolVersion => "choose another version with -V",
        ReasonCode::ClientIdentifierNotValid => "choose another client identifier with -i",
        ReasonCode::BadUserNameOrPassword => "check -u and -P",
        ReasonCode::NotAuthorized => "check -u and -P, or the certificate (--cert)",
        ReasonCode::ServerUnavailable | ReasonCode::ServerBusy => "try again later",
        ReasonCode::TopicNameInvalid => "check --will-topic",
        ReasonCode::QoSNotSupported => "lower --will-qos",
        ReasonCode::RetainNotSupported => "leave out --will-retain",
        _ => return reason.name().to_owned(),
    };
    format!("{}; {advice}", reason.name())
}

fn detail(text: Option<&str>) -> String {
    text.map(|text| format!(" ({text})")).unwrap_or_default()
}
