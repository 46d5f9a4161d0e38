//! `evermq sub`

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evermq_mqtt::packet::{ConnAck, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, TopicFilter};

use super::Voice;
use super::connect::{connect, reconnect};
use super::connection::Connection;
use super::failure::Failure;
use super::options::{ConnectionArgs, Target, parse_qos, parse_seconds, refuse_unused, text};
use super::property::{Command, Properties};
use super::publish::disconnect;
use super::session::{Action, Session};
use super::stop::{Cause, Stop};

/// `evermq sub`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[command(
    after_help = "Exit status: 0 after -C messages, -E or a signal; 27 when the time of -W is up; the server's code \
    when it refuses the connection; 2 for a wrong command line; 1 otherwise."
)]
pub struct SubArgs {
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// Topic filter to subscribe to; may be repeated
    #[arg(short, long = "topic", value_name = "FILTER", required = true)]
    topics: Vec<String>,
    /// Maximum QoS: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// End after COUNT messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after SECONDS
    #[arg(short = 'W', value_name = "SECONDS", value_parser = parse_seconds)]
    wait: Option<Duration>,
    /// End when the subscriptions are acknowledged
    #[arg(short = 'E')]
    exit_when_subscribed: bool,
    /// Print the topic before each payload
    #[arg(short, long)]
    verbose: bool,
    /// Print no newline after each payload
    #[arg(short = 'N')]
    no_newline: bool,
    /// Print no retained messages
    #[arg(short = 'R')]
    no_retained: bool,
    /// Print no messages whose topic matches FILTER; may be repeated
    #[arg(short = 'T', long = "filter-out", value_name = "FILTER")]
    filter_out: Vec<String>,
    /// Unsubscribe from FILTER; may be repeated
    #[arg(short = 'U', long = "unsubscribe", value_name = "FILTER")]
    unsubscribe: Vec<String>,
    /// Ask the server to leave the retain flag as published (mqttv5)
    #[arg(long)]
    retain_as_published: bool,
}

pub(super) async fn run(args: SubArgs, voice: Voice) -> Result<ExitCode, Failure> {
    let (target, properties) = args.connection.target("sub")?;
    refuse_unused(&properties, &[Command::Publish])?;
    let maximum_alias = target.connect.properties.topic_alias_maximum.unwrap_or(0);
    let mut subscriber = Subscriber {
        target: &target,
        voice,
        filters: filters(&args.topics, "-t")?,
        filter_out: filters(&args.filter_out, "-T")?,
        unsubscribe: filters(&args.unsubscribe, "-U")?,
        session: Session::new(1, maximum_alias),
        stop: Stop::new(args.wait)?,
        left: args.count,
        is_subscribed: false,
        properties,
        args: &args,
    };
    match subscriber.run().await? {
        End::Done | End::Stopped(Cause::Signal) => Ok(ExitCode::SUCCESS),
        End::Stopped(Cause::Timeout(timeout)) => Err(Failure::TimedOut { seconds: timeout.as_secs_f32() }),
    }
}

fn filters(given: &[String], flag: &str) -> Result<Vec<TopicFilter>, Failure> {
    let parse = |filter: &String| {
        TopicFilter::new(text(filter, flag)?).map_err(|error| Failure::Usage(format!("{flag} {filter}: {error}")))
    };
    given.iter().map(parse).collect()
}

/// Why a subscriber ends well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Stopped(Cause),
}

struct Subscriber<'a> {
    target: &'a Target,
    voice: Voice,
    args: &'a SubArgs,
    properties: Properties,
    filters: Vec<TopicFilter>,
    filter_out: Vec<TopicFilter>,
    unsubscribe: Vec<TopicFilter>,
    session: Session,
    stop: Stop,
    /// `-C`: messages still to print.
    left: Option<u64>,
    /// The server has answered a SUBSCRIBE of this run.
    is_subscribed: bool,
}

impl Subscriber<'_> {
    async fn run(&mut self) -> Result<End, Failure> {
        let (mut connection, mut connack) = tokio::select! {
            connected = connect(self.target) => connected?,
            cause = self.stop.wait() => return Ok(End::Stopped(cause)),
        };
        loop {
            self.begin(&connack, &mut connection)?;
            match self.serve(&mut connection).await {
                Ok(end) => {
                    connection.close(disconnect(self.properties.disconnect.clone())).await;
                    return Ok(end);
                }
                Err(loss) => {
                    self.session.handle_disconnected();
                    match reconnect(self.target, loss, &mut self.stop).await? {
                        Ok(connected) => (connection, connack) = connected,
                        Err(cause) => return Ok(End::Stopped(cause)),
                    }
                }
            }
        }
    }

    /// Subscribes, unless the server still has the subscriptions of this run: it would send retained messages again.
    fn begin(&mut self, connack: &ConnAck, connection: &mut Connection) -> Result<(), Failure> {
        self.session.handle_connected(connack);
        if connack.session_present && self.is_subscribed {
            return Ok(());
        }
        let options = SubscriptionOptions {
            qos: self.args.qos,
            retain_as_published: self.args.retain_as_published,
            ..SubscriptionOptions::default()
        };
        connection.send(&Packet::Subscribe(Subscribe {
            packet_id: self.session.allocate_id(),
            filters: self.filters.iter().map(|filter| SubscribeFilter { filter: filter.clone(), options }).collect(),
            properties: self.properties.subscribe.clone(),
        }))?;
        if !self.unsubscribe.is_empty() {
            connection.send(&Packet::Unsubscribe(Unsubscribe {
                packet_id: self.session.allocate_id(),
                filters: self.unsubscribe.clone(),
                user_properties: self.properties.unsubscribe.clone(),
            }))?;
        }
        Ok(())
    }

    /// Prints messages of one connection until there are enough.
    async fn serve(&mut self, connection: &mut Connection) -> Result<End, Failure> {
        loop {
            while let Some(action) = self.session.poll_action() {
                if self.act(action, connection)? {
                    return Ok(End::Done);
                }
            }
            tokio::select! {
                packet = connection.next() => {
                    if let Some(packet) = packet? {
                        self.session.handle_packet(packet)?;
                    }
                }
                cause = self.stop.wait() => return Ok(End::Stopped(cause)),
            }
        }
    }

    /// Says whether that was all.
    fn act(&mut self, action: Action, connection: &mut Connection) -> Result<bool, Failure> {
        match action {
            Action::Send(packet) => {
                connection.send(&packet)?;
                // The last message is acknowledged before the end, so that it does not come again.
                Ok(self.left == Some(0))
            }
            Action::Deliver(publish) => self.deliver(&publish),
            Action::Subscribed(reasons) => {
                self.is_subscribed = true;
                self.report_refusals(&reasons)?;
                Ok(self.args.exit_when_subscribed)
            }
            Action::Acknowledged { .. } | Action::Unsubscribed => Ok(false),
        }
    }

    fn report_refusals(&self, reasons: &[ReasonCode]) -> Result<(), Failure> {
        for (filter, reason) in self.filters.iter().zip(reasons).filter(|(_, reason)| reason.is_error()) {
            self.voice.complain(&format!("evermq sub: the server refused {filter}: {}", reason.name()));
        }
        if reasons.iter().all(|reason| reason.is_error()) {
            return Err(Failure::NotSubscribed);
        }
        Ok(())
    }

    /// Prints a message, if it is wanted; says whether it was the last and needs no acknowledgement.
    fn deliver(&mut self, publish: &Publish) -> Result<bool, Failure> {
        let is_unwanted = (self.args.no_retained && publish.retain)
            || self.filter_out.iter().any(|filter| filter.matches(&publish.topic));
        if is_unwanted || self.left == Some(0) {
            return Ok(false);
        }
        match print(publish, self.args.verbose, !self.args.no_newline) {
            // Whoever read the output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
            printed => printed.map_err(Failure::Output)?,
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(self.left == Some(0) && publish.qos == QoS::AtMostOnce)
    }
}

/// The format of mosquitto_sub, which says `(null)` for an empty payload behind a topic.
fn print(publish: &Publish, verbose: bool, newline: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if verbose {
        out.write_all(publish.topic.as_str().as_bytes())?;
        out.write_all(if publish.payload.is_empty() { b" (null)" } else { b" " })?;
    }
    out.write_all(&publish.payload)?;
    if newline {
        out.write_all(b"\n")?;
    }
    out.flush()
}
