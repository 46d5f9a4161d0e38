//! What a session asked for, done.
//!
//! A publisher that sends fast has many messages in what one read brings, as a rule of one topic. They go through the broker
//! together as a *run*, and their acknowledgements follow together.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use evermq_mqtt::codec::{self, EncodeError};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, Version};
use evermq_store::Position;
use tokio::io::{AsyncRead, AsyncWrite};

use super::buffers::Buffers;
use super::held::Promise;
use super::{Connection, Phase};
use crate::session::{Action, Session, Wanted};

/// The answer to a message, or another packet.
pub(super) struct Answer {
    packet: Packet,
    /// To a message of the run.
    is_of_run: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Does what the session asked for, in its order: a message is on its way before it is acknowledged.
    pub(super) fn perform(&mut self, buffers: &mut Buffers, now: Instant) {
        buffers.wakes.take_recorded();
        let mut published = false;
        while let Some(action) = buffers.actions.pop_front() {
            match action {
                Action::Send(packet) => self.answer(&packet, buffers),
                Action::Publish(publish) => {
                    published = true;
                    self.publish(publish, buffers, now);
                }
                Action::Close { reason, text } => {
                    tracing::debug!(client = %self.mailbox.client_id(), reason = reason.name(), text = &*text, "connection closes");
                    self.broker.counters.ended.count(reason);
                    self.phase = if self.phase == Phase::Lost { Phase::Lost } else { Phase::Closing };
                }
                Action::Subscribe(first) => self.subscribe(first, buffers, now),
                Action::SendWill(_)
                | Action::Refused(_)
                | Action::Unsubscribe(_)
                | Action::Watch
                | Action::SendAway(_)
                | Action::GiveBack(_)
                | Action::Withdrawn(_)
                | Action::End { .. } => {
                    self.broker.apply(&self.mailbox, action, now, &mut buffers.wakes);
                }
            }
        }
        if published {
            self.fills_store = buffers.wakes.recorded() != Position::default();
        }
    }

    /// Enters `first`, and with it the subscriptions behind it.
    fn subscribe(&mut self, first: Wanted, buffers: &mut Buffers, now: Instant) {
        let Buffers { actions, wakes, .. } = buffers;
        let mut wanted = vec![first];
        while let Some(Action::Subscribe(_)) = actions.front() {
            if let Some(Action::Subscribe(next)) = actions.pop_front() {
                wanted.push(next);
            }
        }
        self.broker.subscribe(&self.mailbox, &wanted, now, wakes);
    }

    /// Publishes `first`, and with it what came behind it and goes the same way.
    fn publish(&mut self, first: Publish, buffers: &mut Buffers, now: Instant) {
        let Buffers { actions, run, answers, wakes, tally, .. } = buffers;
        take_run(first, actions, run, answers);
        for publish in &*run {
            tally.accepted();
            tracing::trace!(client = %self.mailbox.client_id(), topic = %publish.topic, qos = ?publish.qos, "message");
        }
        let outcome = match run.pop() {
            Some(only) if run.is_empty() => self.broker.publish(&self.mailbox, only, now, wakes),
            last => {
                run.extend(last);
                self.broker.publish_run(&self.mailbox, run, now, wakes)
            }
        };
        let is_unheard = outcome.is_unheard;
        self.pause.update(outcome, &self.broker);
        let mut answers = std::mem::take(answers);
        for Answer { mut packet, is_of_run } in answers.drain(..) {
            if is_unheard && is_of_run {
                say_unheard(&mut packet, self.version);
            }
            self.answer(&packet, buffers);
        }
        buffers.answers = answers;
    }

    /// Writes a packet that is no message.
    fn answer(&mut self, packet: &Packet, buffers: &mut Buffers) {
        let Buffers { output, wakes, tally, .. } = buffers;
        tally.sent();
        if self.presence.is_traced() {
            self.show_sent(packet);
        }
        if let Packet::PubRec(ack) = packet
            && !ack.reason.is_error()
            && self.mailbox.is_durable()
        {
            let mut slot = self.mailbox.lock();
            let confirm = |session: &mut Session| session.confirm_received(ack.packet_id);
            self.mailbox.change(&mut slot, wakes.changes(), confirm);
            self.recorded = slot.recorded;
            wakes.complete_at(self.recorded);
        }
        // All that was published before it is on its way; where it is kept, it is to be kept first.
        let promise = (Promise::of(packet), self.recorded.max(wakes.recorded()));
        let journal = self.broker.journal.as_deref();
        let encode = |out: &mut BytesMut| send(packet, self.version, self.aliases.max_packet_size(), out);
        if let Err(error) = self.held.write(journal, promise, output, encode) {
            tracing::warn!(client = %self.mailbox.client_id(), %error, "packet cannot be written");
        }
    }
}

/// Puts `first` into `run`, and out of `actions` the messages behind it that go the same way, with the answers to them all.
fn take_run(first: Publish, actions: &mut VecDeque<Action>, run: &mut Vec<Publish>, answers: &mut Vec<Answer>) {
    run.clear();
    let may_go_on = is_plain(&first);
    let mut is_answered = first.qos > QoS::AtMostOnce;
    run.push(first);
    while let Some(action) = actions.pop_front() {
        match action {
            Action::Publish(next) if may_go_on && is_plain(&next) && next.topic == run[0].topic => {
                is_answered = next.qos > QoS::AtMostOnce;
                run.push(next);
            }
            Action::Send(packet @ (Packet::PubAck(_) | Packet::PubRec(_))) if may_go_on || is_answered => {
                answers.push(Answer { packet, is_of_run: std::mem::take(&mut is_answered) });
            }
            other => {
                actions.push_front(other);
                break;
            }
        }
    }
}

/// Whether the message only goes to its subscribers: neither is it to be retained, nor has it an origin that matters.
fn is_plain(publish: &Publish) -> bool {
    !publish.retain && publish.packet_id.is_none()
}

/// Appends an answer, unless it is larger than the client takes: then it counts as sent (`[MQTT-3.1.2-24]`).
fn send(packet: &Packet, version: Version, max_len: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    codec::encode(packet, version, out)?;
    if out.len() - start > max_len {
        out.truncate(start);
        tracing::debug!(packet = %codec::packet_type(packet), max_len, "packet is larger than the client takes");
    }
    Ok(())
}

/// The answer to a message of QoS 1 that nobody has asked for says so (§3.4.2.1); before MQTT 5.0 it cannot. That to one of
/// QoS 2 is not the last word on it, and says it no more than other brokers' do.
fn say_unheard(packet: &mut Packet, version: Version) {
    if let (Packet::PubAck(ack), Version::V5) = (packet, version)
        && ack.reason == ReasonCode::Success
    {
        ack.reason = ReasonCode::NoMatchingSubscribers;
    }
}

#[cfg(test)]
mod tests {
    use evermq_mqtt::packet::Ack;
    use evermq_mqtt::{PacketId, Text, TopicName};

    use super::*;

    fn publish(topic: &str, qos: QoS) -> Publish {
        let topic = TopicName::new(Text::new(topic).unwrap()).unwrap();
        let payload = bytes::Bytes::new();
        Publish { dup: false, qos, retain: false, topic, packet_id: None, properties: None, payload }
    }

    fn ack(id: u16) -> Action {
        let packet_id = PacketId(id.try_into().unwrap());
        Action::Send(Packet::PubAck(Ack { packet_id, reason: ReasonCode::Success, properties: None }))
    }

    /// Topics of the run, how many of the answers are to its messages and how many are not, and how many actions are left.
    fn taken(first: Publish, actions: Vec<Action>) -> (Vec<String>, usize, usize, usize) {
        let (mut actions, mut run, mut answers) = (VecDeque::from(actions), Vec::new(), Vec::new());
        take_run(first, &mut actions, &mut run, &mut answers);
        let of_run = answers.iter().filter(|answer| answer.is_of_run).count();
        let topics = run.iter().map(|publish| publish.topic.as_str().to_owned()).collect();
        (topics, of_run, answers.len() - of_run, actions.len())
    }

    #[test]
    fn messages_of_one_topic_go_together_with_their_answers() {
        let publish = |topic: &str| publish(topic, QoS::AtLeastOnce);
        let next = |topic: &str| Action::Publish(publish(topic));
        let actions = vec![ack(1), next("a"), ack(2), next("b"), ack(3), next("a"), ack(4)];
        assert_eq!(taken(publish("a"), actions), (vec!["a".to_owned(), "a".to_owned()], 2, 0, 4));
    }

    #[test]
    fn an_answer_to_what_came_before_is_none_of_the_run() {
        let next = Action::Publish(publish("a", QoS::AtMostOnce));
        assert_eq!(taken(publish("a", QoS::AtMostOnce), vec![ack(1), next]).1, 0);
    }

    #[test]
    fn what_is_retained_or_has_an_origin_goes_alone() {
        let plain = || publish("a", QoS::AtLeastOnce);
        let retained = || Publish { retain: true, ..plain() };
        let with_origin = || Publish { packet_id: Some(PacketId(std::num::NonZeroU16::MIN)), ..plain() };
        let specials: [&dyn Fn() -> Publish; 2] = [&retained, &with_origin];
        for special in specials {
            assert_eq!(
                taken(special(), vec![ack(1), Action::Publish(plain()), ack(2)]),
                (vec!["a".to_owned()], 1, 0, 2)
            );
            assert_eq!(
                taken(plain(), vec![ack(1), Action::Publish(special()), ack(2)]),
                (vec!["a".to_owned()], 1, 0, 2)
            );
        }
    }

    #[test]
    fn anything_else_ends_the_run() {
        let actions = vec![ack(1), Action::Send(Packet::PingResp), Action::Publish(publish("a", QoS::AtLeastOnce))];
        assert_eq!(taken(publish("a", QoS::AtLeastOnce), actions).3, 2);
    }
}
