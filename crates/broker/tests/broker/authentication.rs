//! Clients that a mechanism lets in are users like others: rules, limits, views. Over sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use evermq_broker::Driver;
use evermq_broker::authentication::{Answer, Exchange, Mechanism};
use evermq_config::broker::{AclRule, Anonymous};
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{QoS, ReasonCode, Text};

use crate::client::{Client, connect, message, resume, text};
use crate::running::{Running, Site};

/// Believes whatever name it is told; an exchange of one step.
#[derive(Debug)]
struct Naive(Text);

#[derive(Debug)]
struct Believing;

impl Mechanism for Naive {
    fn name(&self) -> &Text {
        &self.0
    }

    fn begin(&self) -> Box<dyn Exchange> {
        Box::new(Believing)
    }
}

impl Exchange for Believing {
    fn handle_data(&mut self, data: Option<&Bytes>) -> Answer {
        match data.map(|data| str::from_utf8(data)) {
            Some(Ok(user)) => Answer::Accept(user.into(), None),
            _ => Answer::Refuse,
        }
    }
}

fn named(user: &str, connect: Connect) -> Connect {
    let mut connect = connect;
    connect.properties.authentication_method = Some(text("NAIVE"));
    connect.properties.authentication_data = Some(Bytes::copy_from_slice(user.as_bytes()));
    connect
}

#[test]
fn who_comes_in_by_a_mechanism_is_that_user_everywhere() {
    let site = Site::new();
    let mut config = site.config("broker1", SocketAddr::from(([127, 0, 0, 1], 0)), &[]);
    config.broker.auth.anonymous = Anonymous::Off;
    config.broker.admission.per_user = Some(1);
    config.broker.auth.rules = vec![AclRule {
        users: vec!["anna".to_owned()],
        clients: Vec::new(),
        publish: vec!["of/%u/#".to_owned()],
        subscribe: vec!["of/%u/#".to_owned()],
        deny: Vec::new(),
    }];
    let driver = Driver::start(&config).unwrap();
    driver.mechanisms().offer(Arc::new(Naive(text("NAIVE"))));
    let broker = Running::of(driver, &config);

    // A name and a password that the CONNECT has besides are not looked at.
    let asked = Connect { username: Some(text("bob")), password: None, ..named("anna", resume("c")) };
    let (mut anna, connack) = Client::open(broker.plain, asked);
    assert_eq!(connack.reason, ReasonCode::Success);
    assert_eq!(connack.properties.authentication_method, Some(text("NAIVE")));
    assert!(!anna.publish(message("of/anna/x", ""), QoS::AtLeastOnce).is_error());
    assert_eq!(anna.publish(message("of/bob/x", ""), QoS::AtLeastOnce), ReasonCode::NotAuthorized);
    let clients = broker.ask(&serde_json::json!({ "request": "clients", "user": "anna" }));
    assert_eq!((&clients["clients"][0]["client"], &clients["clients"][0]["user"]), (&"c".into(), &"anna".into()));

    for (connect, reason) in [
        (named("anna", connect("other")), ReasonCode::QuotaExceeded),
        (named("bob", connect("c")), ReasonCode::ClientIdentifierNotValid),
        (connect("c"), ReasonCode::NotAuthorized),
    ] {
        assert_eq!(Client::open(broker.plain, connect).1.reason, reason);
    }
    let mut unknown = named("anna", connect("c"));
    unknown.properties.authentication_method = Some(text("OTHER"));
    assert_eq!(Client::open(broker.plain, unknown).1.reason, ReasonCode::BadAuthenticationMethod);
    anna.expect_nothing();
}
