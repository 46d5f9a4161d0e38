//! ◆ Which topics cross a bridge, and what they are called on the other side: mosquitto's `topic` lines.
//!
//! A message's topic is held against the lines in their order. The first line of its direction that matches **and has a prefix**
//! decides: its prefix of the side that the message comes from goes, that of the other side comes before what is left. Where no
//! such line matches, the topic stays as it is. `#` also matches the level above it, which does not begin with the prefix; then
//! nothing goes, as with mosquitto.

use evermq_config::bridges::BridgeTopic;
use evermq_mqtt::packet::{RetainHandling, SubscribeFilter, SubscriptionOptions};
use evermq_mqtt::{QoS, Text, TopicFilter, TopicName};

/// The lines of one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    local: TopicFilter,
    remote: TopicFilter,
    local_prefix: String,
    remote_prefix: String,
    is_out: bool,
    is_in: bool,
    qos: QoS,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the remote broker.
    Out = 0,
    /// From it.
    In = 1,
}

/// What becomes of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// The message goes on with this one.
    Topic(TopicName),
    /// No line of this direction matches: it comes through a subscription that is not the bridge's any more.
    Unwanted,
    /// Nothing is left of it, or more than MQTT can say.
    Impossible,
}

impl Topics {
    /// As the cluster file has them.
    #[must_use]
    pub fn new(topics: &[BridgeTopic]) -> Self {
        let filter = |text: &str| TopicFilter::new(Text::new(text).ok()?).ok();
        let line = |topic: &BridgeTopic| {
            Some(Line {
                local: filter(&topic.local())?,
                remote: filter(&topic.remote())?,
                local_prefix: topic.local_prefix.clone(),
                remote_prefix: topic.remote_prefix.clone(),
                is_out: topic.direction.is_out(),
                is_in: topic.direction.is_in(),
                qos: QoS::from_bits(topic.qos).unwrap_or_default(),
            })
        };
        // The cluster file was checked: there is none that is no filter, but for one of more than 65,535 bytes.
        Self(topics.iter().filter_map(line).collect())
    }

    /// What a message of `topic` is called on the other side.
    #[must_use]
    pub fn map(&self, way: Way, topic: &TopicName) -> Mapped {
        let mut is_wanted = false;
        for line in self.0.iter().filter(|line| line.goes(way) && line.source(way).0.matches(topic)) {
            is_wanted = true;
            let ((_, from), (_, to)) = (line.source(way), line.target(way));
            if from.is_empty() && to.is_empty() {
                continue;
            }
            let name = topic.as_str();
            let name = format!("{to}{}", name.strip_prefix(from).unwrap_or(name));
            if name.is_empty() {
                return Mapped::Impossible;
            }
            let name = Text::new(&name).ok().and_then(|name| TopicName::new(name).ok());
            return name.map_or(Mapped::Impossible, Mapped::Topic);
        }
        if is_wanted { Mapped::Topic(topic.clone()) } else { Mapped::Unwanted }
    }

    /// The subscriptions of one direction, each filter once with its highest QoS: those of the session here for [`Way::Out`],
    /// those at the remote broker for [`Way::In`]. What a bridge has sent itself does not come back to it, and the RETAIN flag
    /// stays as it was published.
    #[must_use]
    pub fn subscriptions(&self, way: Way, retained: RetainHandling) -> Vec<SubscribeFilter> {
        let mut found: Vec<SubscribeFilter> = Vec::new();
        for line in self.0.iter().filter(|line| line.goes(way)) {
            let filter = line.source(way).0;
            if let Some(present) = found.iter_mut().find(|present| present.filter == *filter) {
                present.options.qos = present.options.qos.max(line.qos);
                continue;
            }
            let options = SubscriptionOptions {
                qos: line.qos,
                no_local: true,
                retain_as_published: true,
                retain_handling: retained,
            };
            found.push(SubscribeFilter { filter: filter.clone(), options });
        }
        found
    }

    /// Whether something crosses the bridge that way.
    #[must_use]
    pub fn any(&self, way: Way) -> bool {
        self.0.iter().any(|line| line.goes(way))
    }

    /// Whether the remote broker would send back what it got, if it did not know that this is a bridge.
    #[must_use]
    pub fn may_come_back(&self) -> bool {
        self.0.iter().any(|line| line.is_in && line.is_out)
    }
}

impl Line {
    const fn goes(&self, way: Way) -> bool {
        match way {
            Way::Out => self.is_out,
            Way::In => self.is_in,
        }
    }

    fn source(&self, way: Way) -> (&TopicFilter, &str) {
        match way {
            Way::Out => (&self.local, &self.local_prefix),
            Way::In => (&self.remote, &self.remote_prefix),
        }
    }

    fn target(&self, way: Way) -> (&TopicFilter, &str) {
        match way {
            Way::Out => self.source(Way::In),
            Way::In => self.source(Way::Out),
        }
    }
}

#[cfg(test)]
mod tests;
