//! `-D COMMAND NAME VALUE`: MQTT 5.0 properties, by mosquitto's names.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use bytes::Bytes;
use evermq_mqtt::Text;
use evermq_mqtt::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, UserProperties, WillProperties,
};

use super::failure::Failure;
use super::options::{text, topic_name};

/// The packet, or the will, that a property goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Publish,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Will,
}

impl Command {
    const ALL: [Self; 6] =
        [Self::Connect, Self::Publish, Self::Subscribe, Self::Unsubscribe, Self::Disconnect, Self::Will];
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Will => "will",
        })
    }
}

/// All properties of the command line.
#[derive(Debug, Default)]
pub(super) struct Properties {
    pub(super) connect: ConnectProperties,
    pub(super) publish: PublishProperties,
    pub(super) subscribe: SubscribeProperties,
    pub(super) unsubscribe: UserProperties,
    pub(super) disconnect: DisconnectProperties,
    pub(super) will: WillProperties,
    /// Commands that were named.
    pub(super) given: Vec<Command>,
}

impl Properties {
    /// Reads the words of all `-D`, one after the other: command, name, value, and for user-property a second value.
    pub(super) fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut found = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let command = Command::ALL.into_iter().find(|command| command.to_string() == word);
            let command = command.ok_or_else(|| {
                let all = Command::ALL.map(|command| command.to_string()).join(", ");
                usage(&format!("-D {word}: choose one of {all}; user-property takes a name and a value"))
            })?;
            let name = words.next().ok_or_else(|| usage(&format!("-D {command} needs a name and a value")))?;
            let flag = format!("-D {command} {name}");
            let value = words.next().ok_or_else(|| usage(&format!("{flag} needs a value")))?;
            if name == "user-property" {
                let second = words.next().ok_or_else(|| usage(&format!("{flag} needs a name and a value")))?;
                let pair = (text(value, &flag)?, text(second, &flag)?);
                found.user_properties(command).push(pair);
            } else {
                found.set(command, name, value, &flag)?;
            }
            found.given.push(command);
        }
        Ok(found)
    }

    pub(super) fn will_is_empty(&self) -> bool {
        self.will == WillProperties::default()
    }

    fn user_properties(&mut self, command: Command) -> &mut UserProperties {
        match command {
            Command::Connect => &mut self.connect.user_properties,
            Command::Publish => &mut self.publish.user_properties,
            Command::Subscribe => &mut self.subscribe.user_properties,
            Command::Unsubscribe => &mut self.unsubscribe,
            Command::Disconnect => &mut self.disconnect.user_properties,
            Command::Will => &mut self.will.publish.user_properties,
        }
    }

    fn set(&mut self, command: Command, name: &str, value: &str, flag: &str) -> Result<(), Failure> {
        let connect = &mut self.connect;
        match (command, name) {
            (Command::Connect, "session-expiry-interval") => connect.session_expiry = Some(number(value, flag)?),
            (Command::Connect, "receive-maximum") => connect.receive_maximum = Some(positive(value, flag)?),
            (Command::Connect, "maximum-packet-size") => connect.maximum_packet_size = Some(positive(value, flag)?),
            (Command::Connect, "topic-alias-maximum") => connect.topic_alias_maximum = Some(number(value, flag)?),
            (Command::Connect, "request-problem-information") => {
                connect.request_problem_information = Some(boolean(value, flag)?);
            }
            (Command::Connect, "request-response-information") => {
                connect.request_response_information = Some(boolean(value, flag)?);
            }
            (Command::Publish, "topic-alias") => self.publish.topic_alias = Some(positive(value, flag)?),
            (Command::Publish, _) => set_of_message(&mut self.publish, name, value, flag)?,
            (Command::Subscribe, "subscription-identifier") => {
                let id = number::<u32>(value, flag)?;
                let id = NonZeroU32::new(id).filter(|id| id.get() <= 268_435_455);
                let id = id.ok_or_else(|| usage(&format!("{flag}: choose 1 to 268435455")))?;
                self.subscribe.subscription_id = Some(id);
            }
            (Command::Disconnect, "session-expiry-interval") => {
                self.disconnect.session_expiry = Some(number(value, flag)?);
            }
            (Command::Disconnect, "reason-string") => self.disconnect.reason_string = Some(text(value, flag)?),
            (Command::Will, "will-delay-interval") => self.will.delay = Some(number(value, flag)?),
            (Command::Will, _) => set_of_message(&mut self.will.publish, name, value, flag)?,
            _ => return Err(no_such(flag)),
        }
        Ok(())
    }
}

/// What a PUBLISH and a will share.
fn set_of_message(message: &mut PublishProperties, name: &str, value: &str, flag: &str) -> Result<(), Failure> {
    match name {
        "payload-format-indicator" => message.payload_is_utf8 = Some(boolean(value, flag)?),
        "message-expiry-interval" => message.message_expiry = Some(number(value, flag)?),
        "content-type" => message.content_type = Some(text(value, flag)?),
        "response-topic" => message.response_topic = Some(response_topic(value, flag)?),
        "correlation-data" => message.correlation_data = Some(Bytes::copy_from_slice(value.as_bytes())),
        _ => return Err(no_such(flag)),
    }
    Ok(())
}

fn response_topic(value: &str, flag: &str) -> Result<Text, Failure> {
    topic_name(value, flag).map(|name| name.text().clone())
}

fn number<T: FromStr>(value: &str, flag: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| usage(&format!("{flag}: {value} is no number that fits")))
}

fn positive<T: FromStr + PartialEq + Default>(value: &str, flag: &str) -> Result<T, Failure> {
    let found = number::<T>(value, flag)?;
    if found == T::default() { Err(usage(&format!("{flag}: 0 is not allowed"))) } else { Ok(found) }
}

fn boolean(value: &str, flag: &str) -> Result<bool, Failure> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(usage(&format!("{flag}: choose 0 or 1"))),
    }
}

fn no_such(flag: &str) -> Failure {
    usage(&format!("{flag}: there is no such property for this packet; `man mosquitto_pub` lists them"))
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Properties, Failure> {
        Properties::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_of_several_flags_follow_each_other() {
        let found = parse(
            "connect receive-maximum 20 publish user-property k v publish content-type text/plain \
             will will-delay-interval 5 subscribe subscription-identifier 7 publish user-property k w",
        )
        .expect("valid properties");
        assert_eq!(found.connect.receive_maximum, Some(20));
        let pairs: Vec<_> = found.publish.user_properties.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["k=v", "k=w"]);
        assert_eq!(found.publish.content_type.as_deref(), Some("text/plain"));
        assert_eq!(found.will.delay, Some(5));
        assert_eq!(found.subscribe.subscription_id.map(NonZeroU32::get), Some(7));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("publish topic-alias 0", "0 is not allowed"),
            ("publish topic-alias 65536", "65536 is no number that fits"),
            ("publish payload-format-indicator 2", "choose 0 or 1"),
            ("publish response-topic a/#", "wildcard"),
            ("publish receive-maximum 1", "no such property"),
            ("subscribe subscription-identifier 268435456", "choose 1 to 268435455"),
            ("connect user-property k", "needs a name and a value"),
            ("connect", "needs a name and a value"),
            ("connack receive-maximum 1", "choose one of connect, publish"),
        ] {
            let text = parse(line).expect_err(line).to_string();
            assert!(text.contains(part), "{line}: {text}");
        }
    }
}
