//! What became of each message. Pure: times are given.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A subscriber counts as connected for a message if it provably was until this long after the acknowledgement.
pub(super) const MARGIN: Duration = Duration::from_secs(1);

/// Every message of a run, and every connection of the subscriber.
#[derive(Debug, Default)]
pub(super) struct Tally {
    messages: Vec<Message>,
    connections: Vec<Connection>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Message {
    sent: Duration,
    acknowledged: Option<Duration>,
    received: u32,
}

/// A connection of the subscriber, as far as it was proven to work: from the SUBACK to the last packet that came.
#[derive(Debug, Clone, Copy)]
struct Connection {
    from: Duration,
    until: Duration,
}

/// What became of the messages, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Messages {
    /// Sent at least once.
    pub(super) sent: usize,
    /// With a PUBACK.
    pub(super) acknowledged: usize,
    /// At least once.
    pub(super) received: usize,
    /// Acknowledged and never received, though the subscriber was connected from before they were sent until [`MARGIN`] after
    /// they were acknowledged.
    pub(super) lost: usize,
    /// Acknowledged and never received; the subscriber was not connected all that time.
    pub(super) missed: usize,
    /// Received more than once.
    pub(super) twice: usize,
}

impl Tally {
    /// A message is sent for the first time; gives its number, which counts up from 0.
    pub(super) fn sent(&mut self, now: Duration) -> usize {
        self.messages.push(Message { sent: now, ..Message::default() });
        self.messages.len() - 1
    }

    /// Its PUBACK came.
    pub(super) fn acknowledged(&mut self, number: usize, now: Duration) {
        if let Some(message) = self.messages.get_mut(number) {
            message.acknowledged.get_or_insert(now);
        }
    }

    /// The subscriber got it.
    pub(super) fn received(&mut self, number: usize) {
        if let Some(message) = self.messages.get_mut(number) {
            message.received += 1;
        }
    }

    /// The subscriber's SUBACK came.
    pub(super) fn subscribed(&mut self, now: Duration) {
        self.connections.push(Connection { from: now, until: now });
    }

    /// Something came on the subscriber's present connection.
    pub(super) fn heard(&mut self, now: Duration) {
        if let Some(connection) = self.connections.last_mut() {
            connection.until = now;
        }
    }

    /// Whether nothing more can change: each message is acknowledged, and received or beyond doubt lost or missed.
    pub(super) fn is_settled(&self) -> bool {
        self.messages.iter().all(|message| {
            message.acknowledged.is_some_and(|at| {
                message.received > 0 || self.connections.last().is_some_and(|last| last.until >= at + MARGIN)
            })
        })
    }

    /// The numbers.
    pub(super) fn messages(&self) -> Messages {
        let count = |is: &dyn Fn(&Message) -> bool| self.messages.iter().filter(|message| is(message)).count();
        let gone = |message: &Message| message.acknowledged.is_some() && message.received == 0;
        Messages {
            sent: self.messages.len(),
            acknowledged: count(&|message| message.acknowledged.is_some()),
            received: count(&|message| message.received > 0),
            lost: count(&|message| gone(message) && self.was_connected(message)),
            missed: count(&|message| gone(message) && !self.was_connected(message)),
            twice: count(&|message| message.received > 1),
        }
    }

    fn was_connected(&self, message: &Message) -> bool {
        let Some(acknowledged) = message.acknowledged else { return false };
        let covers =
            |connection: &Connection| connection.from <= message.sent && connection.until >= acknowledged + MARGIN;
        self.connections.iter().any(covers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A subscriber that was connected from 0 to 5000 ms and from 6000 to 20,000 ms.
    fn tally() -> Tally {
        let mut tally = Tally::default();
        tally.subscribed(at(0));
        tally.heard(at(5000));
        tally.subscribed(at(6000));
        tally.heard(at(20_000));
        tally
    }

    #[test]
    fn a_message_that_did_not_come_is_lost_only_if_the_subscriber_was_there_all_the_time() {
        for (sent, acknowledged, lost) in [
            (1000, 1001, true),
            (3999, 4000, true),
            (3999, 4001, false), // The connection is proven for less than the margin.
            (4500, 6500, false), // It is another connection.
            (5500, 7000, false),
            (6000, 6001, true),
            (19_500, 19_501, false),
        ] {
            let mut tally = tally();
            let number = tally.sent(at(sent));
            tally.acknowledged(number, at(acknowledged));
            let expected =
                Messages { sent: 1, acknowledged: 1, lost: lost.into(), missed: (!lost).into(), ..Messages::default() };
            assert_eq!(tally.messages(), expected, "sent at {sent}");
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_not_lost() {
        let mut tally = tally();
        tally.sent(at(1000));
        assert_eq!(tally.messages(), Messages { sent: 1, ..Messages::default() });
        assert!(!tally.is_settled());
    }

    #[test]
    fn copies_are_counted_once_as_received_and_once_as_twice() {
        let mut tally = tally();
        let number = tally.sent(at(1000));
        tally.acknowledged(number, at(1001));
        for _ in 0..3 {
            tally.received(number);
        }
        let expected = Messages { sent: 1, acknowledged: 1, received: 1, twice: 1, ..Messages::default() };
        assert_eq!(tally.messages(), expected);
        assert!(tally.is_settled());
    }

    #[test]
    fn a_missing_message_is_open_until_the_margin_has_passed() {
        let mut tally = Tally::default();
        tally.subscribed(at(0));
        let number = tally.sent(at(1000));
        tally.acknowledged(number, at(1001));
        tally.heard(at(1500));
        assert!(!tally.is_settled());
        tally.heard(at(2001));
        assert!(tally.is_settled());
    }
}
