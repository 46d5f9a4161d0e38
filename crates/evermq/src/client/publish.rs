//! `evermq pub`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use evermq_mqtt::packet::{ConnAck, Disconnect};
use evermq_mqtt::properties::{DisconnectProperties, PublishProperties};
use evermq_mqtt::{Publish, QoS, ReasonCode, Text};

use super::Voice;
use super::connect::{connect, reconnect};
use super::connection::Connection;
use super::failure::Failure;
use super::options::{ConnectionArgs, Target, parse_qos, parse_seconds, refuse_unused, topic_name};
use super::property::Command;
use super::session::{Action, Session};
use super::source::{Source, read_all, read_file};
use super::stop::{Cause, Stop};

/// `evermq pub`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[command(group = clap::ArgGroup::new("payload").required(true))]
#[command(
    after_help = "Exit status: 0 when every message is sent, and above QoS 0 acknowledged; the server's code when \
    it refuses the connection; 2 for a wrong command line; 1 otherwise."
)]
pub struct PubArgs {
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// Topic to publish to
    #[arg(short, long, value_name = "TOPIC", allow_hyphen_values = true)]
    topic: String,
    /// Send TEXT
    #[arg(short, long, value_name = "TEXT", group = "payload", allow_hyphen_values = true)]
    message: Option<String>,
    /// Send a file
    #[arg(short, long, value_name = "FILE", group = "payload")]
    file: Option<PathBuf>,
    /// Send each line of standard input; above QoS 0 again until it is acknowledged
    #[arg(short = 'l', long, group = "payload")]
    stdin_line: bool,
    /// Send an empty message
    #[arg(short, long, group = "payload")]
    null_message: bool,
    /// Send all of standard input as one message
    #[arg(short, long, group = "payload")]
    stdin_file: bool,
    /// QoS: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Retain the message
    #[arg(short, long)]
    retain: bool,
    /// Messages above QoS 0 that may be unacknowledged at once
    #[arg(short = 'M', long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    max_inflight: u16,
    /// Send the message COUNT times
    #[arg(long, value_name = "COUNT", default_value_t = 1, conflicts_with = "stdin_line")]
    repeat: u64,
    /// Seconds between two of --repeat
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_seconds, requires = "repeat")]
    repeat_delay: Duration,
}

pub(super) async fn run(args: PubArgs, voice: Voice) -> Result<ExitCode, Failure> {
    let (target, properties) = args.connection.target("pub")?;
    refuse_unused(&properties, &[Command::Subscribe, Command::Unsubscribe])?;
    let message = Publish {
        dup: false,
        qos: args.qos,
        retain: args.retain,
        topic: topic_name(&args.topic, "-t")?,
        packet_id: None,
        properties: (properties.publish != PublishProperties::default()).then(|| Box::new(properties.publish)),
        payload: Bytes::new(),
    };
    let source = args.source()?;
    let mut publisher = Publisher {
        target: &target,
        is_stream: args.stdin_line,
        session: Session::new(args.max_inflight, 0),
        message,
        source,
        is_source_empty: false,
        stop: Stop::new(None)?,
        refused: 0,
        refusal: None,
    };
    let outcome = publisher.run(properties.disconnect).await;
    if let Some((reason, text)) = publisher.refusal.take() {
        let failure = Failure::NotAccepted { count: publisher.refused, reason, text: text.map(|t| t.to_string()) };
        voice.complain(&format!("evermq pub: {failure}"));
        return outcome.map(|()| ExitCode::from(failure.exit_status()));
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

impl PubArgs {
    fn source(&self) -> Result<Source, Failure> {
        if self.stdin_line {
            return Source::lines();
        }
        let payload = match (&self.message, &self.file) {
            (Some(text), _) => Bytes::from(text.clone()),
            (None, Some(path)) => read_file(path)?,
            (None, None) if self.stdin_file => read_all()?,
            (None, None) => Bytes::new(),
        };
        Ok(Source::repeated(payload, self.repeat, self.repeat_delay))
    }
}

struct Publisher<'a> {
    target: &'a Target,
    /// `-l`: a lost connection is no reason to end, not even at QoS 0.
    is_stream: bool,
    session: Session,
    /// All of the message but its payload.
    message: Publish,
    source: Source,
    is_source_empty: bool,
    stop: Stop,
    /// Messages that the server did not accept, and its first reason.
    refused: u64,
    refusal: Option<(ReasonCode, Option<Text>)>,
}

impl Publisher<'_> {
    async fn run(&mut self, goodbye: DisconnectProperties) -> Result<(), Failure> {
        let (mut connection, mut connack) = tokio::select! {
            connected = connect(self.target) => connected?,
            _ = self.stop.wait() => return Err(self.interrupted()),
        };
        loop {
            self.check_abilities(&connack)?;
            self.session.handle_connected(&connack);
            let loss = match self.serve(&mut connection).await {
                Ok(None) => {
                    connection.close(disconnect(goodbye)).await;
                    return Ok(());
                }
                Ok(Some(Cause::Signal | Cause::Timeout(_))) => {
                    connection.close(disconnect(goodbye)).await;
                    return Err(self.interrupted());
                }
                Err(loss) => loss,
            };
            self.session.handle_disconnected();
            if self.message.qos == QoS::AtMostOnce && !self.is_stream {
                return Err(loss);
            }
            match reconnect(self.target, loss, &mut self.stop).await? {
                Ok(connected) => (connection, connack) = connected,
                Err(_) => return Err(self.interrupted()),
            }
        }
    }

    fn interrupted(&self) -> Failure {
        Failure::Interrupted { unacknowledged: self.session.unacknowledged() }
    }

    /// [MQTT-3.2.2-11], [MQTT-3.2.2-14]
    fn check_abilities(&self, connack: &ConnAck) -> Result<(), Failure> {
        if let Some(maximum) = connack.properties.maximum_qos.filter(|maximum| self.message.qos > *maximum) {
            return Err(Failure::QoS { maximum: maximum as u8 });
        }
        if self.message.retain && connack.properties.retain_available == Some(false) {
            return Err(Failure::Retain);
        }
        Ok(())
    }

    /// Publishes over one connection; `None` when everything is done.
    async fn serve(&mut self, connection: &mut Connection) -> Result<Option<Cause>, Failure> {
        loop {
            while let Some(action) = self.session.poll_action() {
                self.act(action, connection)?;
            }
            if self.is_source_empty && self.session.unacknowledged() == 0 && connection.is_flushed() {
                return Ok(None);
            }
            let wants_more = !self.is_source_empty && self.session.has_room() && connection.has_room();
            tokio::select! {
                packet = connection.next() => {
                    if let Some(packet) = packet? {
                        self.session.handle_packet(packet)?;
                    }
                }
                payload = self.source.next(), if wants_more => match payload? {
                    Some(payload) => self.publish(payload, connection)?,
                    None => self.is_source_empty = true,
                },
                cause = self.stop.wait() => return Ok(Some(cause)),
            }
        }
    }

    /// Publishes a payload, and those that are ready behind it: one write for many small messages.
    fn publish(&mut self, payload: Bytes, connection: &mut Connection) -> Result<(), Failure> {
        let mut next = Some(payload);
        while let Some(payload) = next {
            self.session.publish(Publish { payload, ..self.message.clone() });
            while let Some(action) = self.session.poll_action() {
                self.act(action, connection)?;
            }
            let has_room = self.session.has_room() && connection.has_room();
            next = if has_room { self.source.ready()? } else { None };
        }
        Ok(())
    }

    fn act(&mut self, action: Action, connection: &mut Connection) -> Result<(), Failure> {
        match action {
            Action::Send(packet) => connection.send(&packet),
            Action::Acknowledged { reason, text } => {
                if reason.is_error() {
                    self.refused += 1;
                    self.refusal.get_or_insert((reason, text));
                }
                Ok(())
            }
            // A session that an earlier run kept may still have subscriptions; acknowledged, and not for us.
            Action::Deliver(_) | Action::Subscribed(_) | Action::Unsubscribed => Ok(()),
        }
    }
}

pub(super) fn disconnect(properties: DisconnectProperties) -> Disconnect {
    let is_empty = properties == DisconnectProperties::default();
    Disconnect { reason: ReasonCode::Success, properties: (!is_empty).then(|| Box::new(properties)) }
}
