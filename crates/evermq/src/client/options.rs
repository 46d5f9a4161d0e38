//! Flags that `pub` and `sub` share, and the CONNECT that they make.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use evermq_mqtt::packet::{Connect, Will};
use evermq_mqtt::properties::ConnectProperties;
use evermq_mqtt::{QoS, Text, TopicName, Version};

use super::Voice;
use super::failure::Failure;
use super::property::{Command, Properties};
use super::tls::Tls;

const PLAIN_PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

/// How to connect, and as whom.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// Server's name or address
    #[arg(short = 'h', long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// Server's port [default: 1883, with TLS 8883]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Version of MQTT: mqttv31, mqttv311 or mqttv5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "mqttv311", value_parser = parse_version)]
    protocol_version: Version,
    /// Client identifier [default: a random one]
    #[arg(short, long, value_name = "ID")]
    id: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    username: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", allow_hyphen_values = true)]
    password: Option<Secret>,
    /// Keep alive in seconds, 0 for none
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
    /// Keep the session at the server when the client has gone; needs -i
    #[arg(short = 'c', long)]
    disable_clean_session: bool,
    /// Seconds that the server keeps the session, -1 for ever (mqttv5) [default: 0, with -c -1]
    #[arg(short = 'x', long, value_name = "SECONDS", allow_hyphen_values = true, value_parser = parse_expiry)]
    session_expiry_interval: Option<u32>,
    /// A property (mqttv5): connect, publish, subscribe, unsubscribe, disconnect or will, then its name and value;
    /// user-property takes two
    #[arg(short = 'D', long = "property", value_names = ["COMMAND", "NAME", "VALUE", "VALUE"], num_args = 3..=4)]
    properties: Vec<String>,
    /// Topic of the will
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// Payload of the will [default: empty]
    #[arg(long, value_name = "TEXT", requires = "will_topic", allow_hyphen_values = true)]
    will_payload: Option<String>,
    /// QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0", value_parser = parse_qos)]
    will_qos: QoS,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// Use TLS, and trust the certificates that this CA has signed (PEM)
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cafile", requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Do not check that the server's certificate is for the server's name; anybody with a certificate of the CA can
    /// pose as the server
    #[arg(long, requires = "cafile")]
    insecure: bool,
    /// Show every packet on standard error
    #[arg(short, long)]
    debug: bool,
    /// Print no errors
    #[arg(long)]
    quiet: bool,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Text that does not show in logs.
#[derive(Clone)]
struct Secret(String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything that it takes to connect.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) connect: Connect,
    pub(super) voice: Voice,
}

impl Target {
    pub(super) fn version(&self) -> Version {
        self.connect.version
    }

    /// Host and port, for messages.
    pub(super) fn server(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl ConnectionArgs {
    pub(super) fn voice(&self) -> Voice {
        Voice { quiet: self.quiet, debug: self.debug }
    }

    /// Checks the flags against each other. `program` is part of a random client identifier.
    pub(super) fn target(&self, program: &str) -> Result<(Target, Properties), Failure> {
        let version = self.protocol_version;
        let properties = Properties::parse(&self.properties)?;
        if version != Version::V5 && !self.properties.is_empty() {
            return Err(Failure::Usage("-D needs MQTT 5.0: add -V mqttv5".to_owned()));
        }
        if version != Version::V5 && self.session_expiry_interval.is_some() {
            return Err(Failure::Usage("-x needs MQTT 5.0: add -V mqttv5".to_owned()));
        }
        if self.disable_clean_session && self.id.is_none() {
            return Err(Failure::Usage("-c needs a client identifier: add -i ID".to_owned()));
        }
        if !properties.will_is_empty() && self.will_topic.is_none() {
            return Err(Failure::Usage("-D will needs a will: add --will-topic TOPIC".to_owned()));
        }
        let connect = self.connect(program, &properties)?;
        let tls = match &self.cafile {
            Some(ca) => {
                let pair = self.cert.as_deref().zip(self.key.as_deref());
                Some(Arc::new(Tls::load(ca, pair, &self.host, self.insecure)?))
            }
            None => None,
        };
        let default_port = if tls.is_some() { TLS_PORT } else { PLAIN_PORT };
        let port = self.port.unwrap_or(default_port);
        let target = Target { host: self.host.clone(), port, tls, connect, voice: self.voice() };
        Ok((target, properties))
    }

    fn connect(&self, program: &str, properties: &Properties) -> Result<Connect, Failure> {
        let version = self.protocol_version;
        let username = self.username.as_deref().map(|name| text(name, "-u")).transpose()?;
        if version != Version::V5 && self.password.is_some() && username.is_none() {
            return Err(Failure::Usage("-P needs a user name before MQTT 5.0: add -u NAME or -V mqttv5".to_owned()));
        }
        let client_id = match &self.id {
            Some(id) => text(id, "-i")?,
            None => text(&random_id(program), "-i")?,
        };
        Ok(Connect {
            version,
            clean_start: !self.disable_clean_session,
            keep_alive: self.keepalive,
            client_id,
            will: self.will(properties)?,
            username,
            password: self.password.as_ref().map(|Secret(password)| Bytes::from(password.clone())),
            properties: ConnectProperties {
                session_expiry: self.session_expiry(&properties.connect),
                ..properties.connect.clone()
            },
            is_bridge: false,
        })
    }

    /// mosquitto's defaults: for ever with -c, else not at all.
    fn session_expiry(&self, given: &ConnectProperties) -> Option<u32> {
        let default = (self.protocol_version == Version::V5 && self.disable_clean_session).then_some(u32::MAX);
        self.session_expiry_interval.or(given.session_expiry).or(default)
    }

    fn will(&self, properties: &Properties) -> Result<Option<Will>, Failure> {
        let Some(topic) = &self.will_topic else { return Ok(None) };
        Ok(Some(Will {
            topic: topic_name(topic, "--will-topic")?,
            payload: Bytes::from(self.will_payload.clone().unwrap_or_default()),
            qos: self.will_qos,
            retain: self.will_retain,
            properties: properties.will.clone(),
        }))
    }
}

/// Another identifier for each process: a second client with the same one would drive the first one out. 23 characters,
/// which every server accepts ([MQTT-3.1.3-5]).
fn random_id(program: &str) -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("evermq-{program}-{:012x}", random & 0xFFFF_FFFF_FFFF)
}

pub(super) fn text(string: &str, flag: &str) -> Result<Text, Failure> {
    Text::new(string).map_err(|error| Failure::Usage(format!("{flag}: {error}")))
}

pub(super) fn topic_name(string: &str, flag: &str) -> Result<TopicName, Failure> {
    if string.is_empty() {
        return Err(Failure::Usage(format!("{flag}: topic is empty")));
    }
    TopicName::new(text(string, flag)?)
        .map_err(|error| Failure::Usage(format!("{flag}: {error}; + and # are for subscriptions only")))
}

pub(super) fn parse_qos(text: &str) -> Result<QoS, String> {
    let bits = text.parse::<u8>().ok();
    bits.and_then(QoS::from_bits).ok_or_else(|| "QoS is 0, 1 or 2".to_owned())
}

pub(super) fn parse_seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse::<f64>().map_err(|_| "not a number of seconds".to_owned())?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text {
        "mqttv31" | "31" => Ok(Version::V3),
        "mqttv311" | "311" => Ok(Version::V4),
        "mqttv5" | "5" => Ok(Version::V5),
        _ => Err("choose mqttv31, mqttv311 or mqttv5".to_owned()),
    }
}

fn parse_expiry(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "∞" => Ok(u32::MAX),
        _ => text.parse().map_err(|_| format!("choose -1 or a number of seconds up to {}", u32::MAX)),
    }
}

/// Whether a property of `command` was given where the command never sends it.
pub(super) fn refuse_unused(properties: &Properties, unused: &[Command]) -> Result<(), Failure> {
    match unused.iter().find(|command| properties.given.contains(command)) {
        Some(command) => Err(Failure::Usage(format!("-D {command}: this command sends no {command}"))),
        None => Ok(()),
    }
}
