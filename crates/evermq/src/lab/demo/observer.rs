//! What the clients have said so far: who is connected, when new connections worked, how long each fault was felt. Pure.

use std::time::Duration;

use super::events::{Client, Event, What};
use super::outage::longest_gap;
use super::tally::Messages;

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Observer {
    probes: Vec<Duration>,
    publisher: Seen,
    subscriber: Seen,
    /// The account at the end.
    pub(super) messages: Option<Messages>,
}

/// What was seen of one client.
#[derive(Debug, Default)]
struct Seen {
    broker: Option<String>,
    /// When it noticed that its connection had ended.
    ended: Vec<Duration>,
    connected: Vec<Duration>,
}

/// How long one client felt a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Felt {
    /// Its connection went on.
    Not,
    /// It was connected again after this.
    For(Duration),
    /// It was not connected again while it was looked at.
    Still,
}

impl Observer {
    /// Takes in one event.
    pub(super) fn handle_event(&mut self, event: &Event) {
        let at = event.at();
        match &event.what {
            What::Probe => self.probes.push(at),
            What::Connected { client, broker } => {
                let seen = self.seen_mut(*client);
                seen.broker = Some(broker.clone());
                seen.connected.push(at);
            }
            What::Disconnected { client, .. } => {
                let seen = self.seen_mut(*client);
                seen.broker = None;
                seen.ended.push(at);
            }
            What::Finished(messages) => self.messages = Some(messages.clone()),
        }
    }

    /// The broker that a client is connected to.
    pub(super) fn broker_of(&self, client: Client) -> Option<&str> {
        self.seen(client).broker.as_deref()
    }

    /// Whether all of them are connected.
    pub(super) fn all_connected(&self) -> bool {
        self.publisher.broker.is_some() && self.subscriber.broker.is_some() && !self.probes.is_empty()
    }

    /// The longest time without a new connection after `fault`.
    pub(super) fn gap(&self, fault: Duration, end: Duration) -> Option<Duration> {
        longest_gap(&self.probes, fault, end)
    }

    /// How long a client felt the fault at `fault`.
    pub(super) fn felt(&self, client: Client, fault: Duration) -> Felt {
        let seen = self.seen(client);
        let Some(ended) = seen.ended.iter().find(|at| **at >= fault) else { return Felt::Not };
        match seen.connected.iter().find(|at| *at >= ended) {
            Some(again) => Felt::For(again.saturating_sub(fault)),
            None => Felt::Still,
        }
    }

    const fn seen(&self, client: Client) -> &Seen {
        match client {
            Client::Publisher => &self.publisher,
            Client::Subscriber => &self.subscriber,
        }
    }

    const fn seen_mut(&mut self, client: Client) -> &mut Seen {
        match client {
            Client::Publisher => &mut self.publisher,
            Client::Subscriber => &mut self.subscriber,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(observer: &mut Observer, at: u64, what: What) {
        observer.handle_event(&Event::new(Duration::from_millis(at), what));
    }

    fn connected(client: Client, broker: &str) -> What {
        What::Connected { client, broker: broker.to_owned() }
    }

    fn disconnected(client: Client) -> What {
        What::Disconnected { client, reason: "gone".to_owned() }
    }

    #[test]
    fn a_fault_is_felt_until_the_client_is_connected_again() {
        let fault = Duration::from_millis(100);
        let mut observer = Observer::default();
        handle(&mut observer, 10, connected(Client::Subscriber, "broker1"));
        handle(&mut observer, 11, connected(Client::Publisher, "broker2"));
        assert!(!observer.all_connected());
        handle(&mut observer, 12, What::Probe);
        assert!(observer.all_connected());
        assert_eq!(observer.felt(Client::Subscriber, fault), Felt::Not);
        handle(&mut observer, 120, disconnected(Client::Subscriber));
        assert_eq!(observer.broker_of(Client::Subscriber), None);
        assert_eq!(observer.felt(Client::Subscriber, fault), Felt::Still);
        handle(&mut observer, 150, connected(Client::Subscriber, "broker2"));
        assert_eq!(observer.felt(Client::Subscriber, fault), Felt::For(Duration::from_millis(50)));
        assert_eq!(observer.broker_of(Client::Subscriber), Some("broker2"));
        assert_eq!(observer.felt(Client::Publisher, fault), Felt::Not);
        // A later fault does not see an earlier end.
        assert_eq!(observer.felt(Client::Subscriber, Duration::from_millis(200)), Felt::Not);
    }
}
