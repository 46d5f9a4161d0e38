//! Subscriptions: all of them, a client's, or those that a topic matches.

use evermq_mqtt::packet::RetainHandling;
use evermq_mqtt::{Text, TopicFilter, TopicName};
use serde_json::{Value, json};

use super::{Cursor, Looked, limit, pattern, walk};
use crate::broker::Broker;
use crate::mailbox::Mailbox;
use crate::session::Subscription;

/// A page of them.
///
/// # Errors
/// The request is none.
pub fn page(broker: &Broker, request: &Value) -> Result<(Vec<Value>, Value), String> {
    let (from, limit) = (Cursor::read(&request["from"])?, limit(request));
    let client = request["client"].as_str();
    let topic = match request["topic"].as_str() {
        None => None,
        Some(topic) => {
            let name = Text::new(topic).ok().and_then(|text| TopicName::new(text).ok());
            let name = name.filter(|name| !name.as_str().is_empty());
            Some(name.ok_or_else(|| format!("\"{topic}\" is no topic name: it is empty or has a wildcard"))?)
        }
    };
    let mut rows = Vec::new();
    let next = walk(&broker.registry, from, |mailbox, skip| {
        if client.is_some_and(|wanted| !pattern::matches(wanted, mailbox.client_id().as_str())) {
            return Looked::Done;
        }
        let slot = mailbox.lock();
        let is_connected = slot.session.link().is_some();
        for (index, (filter, subscription)) in slot.session.subscriptions().enumerate().skip(skip) {
            if topic.as_ref().is_some_and(|topic| !filter.matches(topic)) {
                continue;
            }
            if rows.len() == limit {
                return Looked::Full(index);
            }
            rows.push(row(mailbox, is_connected, filter, subscription));
        }
        Looked::Done
    });
    Ok((rows, next.map(Cursor::to_json).unwrap_or_default()))
}

fn row(mailbox: &Mailbox, is_connected: bool, filter: &TopicFilter, subscription: &Subscription) -> Value {
    let options = subscription.options;
    let retain_handling = match options.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DoNotSend => 2,
    };
    json!({
        "client": mailbox.client_id().as_str(),
        "connected": is_connected,
        "filter": filter.as_str(),
        "group": filter.share().map(|(group, _)| group),
        "qos": options.qos as u8,
        "no_local": options.no_local,
        "retain_as_published": options.retain_as_published,
        "retain_handling": retain_handling,
        "id": subscription.id.map(std::num::NonZeroU32::get),
    })
}
