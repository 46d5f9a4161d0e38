//! Who gets in and may do what, over sockets.

use std::net::SocketAddr;
use std::path::PathBuf;

use evermq_access::Hash;
use evermq_config::broker::{AclRule, Anonymous, Broker, CertificateIdentity};
use evermq_mqtt::packet::{Connect, SubscriptionOptions};
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};
use rcgen::SanType;

use crate::client::{Client, connect, message, resume, text, will};
use crate::listeners::tls;
use crate::running::{PATIENCE, Running, Site, start_with};

/// A client that says who it is.
fn as_user(client_id: &str, user: &str, password: &str) -> Connect {
    let password = Some(password.as_bytes().to_vec().into());
    Connect { username: Some(text(user)), password, ..connect(client_id) }
}

fn rule(users: &[&str], publish: &[&str], subscribe: &[&str], deny: &[&str]) -> AclRule {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    AclRule {
        users: own(users),
        clients: Vec::new(),
        publish: own(publish),
        subscribe: own(subscribe),
        deny: own(deny),
    }
}

/// A broker that knows these users.
fn with_users(users: &[(&str, &str)], change: impl FnOnce(&mut Broker)) -> (Site, Running) {
    let site = Site::new();
    let file = passwords(&site, users);
    let mut config = site.config("broker1", SocketAddr::from(([127, 0, 0, 1], 0)), &[]);
    config.broker.auth.password_file = Some(file);
    config.broker.auth.anonymous = Anonymous::Off;
    change(&mut config.broker);
    let running = Running::start(&config);
    (site, running)
}

fn passwords(site: &Site, users: &[(&str, &str)]) -> PathBuf {
    let path = site.directory.path().join("passwords");
    let lines = users.iter().map(|(user, password)| format!("{user}:{}\n", Hash::make(password.as_bytes())));
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

#[test]
fn passwords_open_the_door() {
    let (_site, broker) = with_users(&[("anna", "secret")], |_| {});
    for version in [Version::V3, Version::V4, Version::V5] {
        for (connect, reason) in [
            (as_user("a", "anna", "secret"), ReasonCode::Success),
            (as_user("a", "anna", "Secret"), ReasonCode::BadUserNameOrPassword),
            (as_user("a", "nobody", "secret"), ReasonCode::BadUserNameOrPassword),
            (Connect { password: None, ..as_user("a", "anna", "") }, ReasonCode::BadUserNameOrPassword),
            (as_user("a", "anna", ""), ReasonCode::BadUserNameOrPassword),
            (as_user("a", "nobody", ""), ReasonCode::BadUserNameOrPassword),
            (connect("a"), ReasonCode::NotAuthorized),
        ] {
            let (_, connack) = Client::open(broker.plain, Connect { version, ..connect });
            // The older versions' 4 is for what is malformed.
            let is_old = version != Version::V5 && reason == ReasonCode::BadUserNameOrPassword;
            let reason = if is_old { ReasonCode::NotAuthorized } else { reason };
            assert_eq!(connack.reason, reason, "{version:?}");
        }
    }
}

#[test]
fn anonymous_clients_of_this_host_get_in_unless_they_may_not() {
    for (anonymous, reason) in [(Anonymous::Loopback, ReasonCode::Success), (Anonymous::Off, ReasonCode::NotAuthorized)]
    {
        let (_site, broker) = start_with(|broker| broker.auth.anonymous = anonymous);
        assert_eq!(Client::open(broker.plain, connect("a")).1.reason, reason);
    }
}

#[test]
fn a_certificate_names_the_user() {
    for (identity, user) in [
        (CertificateIdentity::CommonName, "device-1"),
        (CertificateIdentity::SanUri, "urn:device:1"),
        (CertificateIdentity::SanDns, "device-1"),
        (CertificateIdentity::Subject, "CN=device-1"),
    ] {
        let (site, broker) = start_with(|broker| {
            broker.auth.identity = identity;
            broker.auth.rules = vec![rule(&[user], &["of/%u"], &[], &[])];
        });
        let own = site.ca.issue_as("device-1", 1, |params| {
            params.subject_alt_names.push(SanType::URI("urn:device:1".try_into().unwrap()));
        });
        // What it says besides is not looked at.
        let (mut client, connack) = Client::over(tls(broker.tls, &own, Some(&own)), as_user("c", "anna", "x"));
        assert_eq!(connack.reason, ReasonCode::Success);
        assert!(!client.publish(message(&format!("of/{user}"), ""), QoS::AtLeastOnce).is_error());
        assert_eq!(client.publish(message("of/anna", ""), QoS::AtLeastOnce), ReasonCode::NotAuthorized);
    }
}

#[test]
fn a_certificate_without_that_name_is_nobodys() {
    let (site, broker) = start_with(|broker| {
        broker.auth.identity = CertificateIdentity::SanUri;
        broker.auth.anonymous = Anonymous::On;
    });
    let own = site.ca.issue("device-1", 1);
    let (_, connack) = Client::over(tls(broker.tls, &own, Some(&own)), connect("c"));
    assert_eq!(connack.reason, ReasonCode::NotAuthorized);
}

#[test]
fn rules_hold_for_publishing_subscribing_and_what_comes() {
    let rules =
        vec![rule(&["anna"], &["a/#"], &["b/#", "retained/+"], &["b/secret"]), rule(&["admin"], &["#"], &["#"], &[])];
    let (_site, broker) = with_users(&[("anna", "1"), ("admin", "2")], |broker| broker.auth.rules = rules);
    let (mut admin, _) = Client::open(broker.plain, as_user("admin", "admin", "2"));
    for topic in ["retained/1", "kept"] {
        let publish = evermq_mqtt::Publish { retain: true, ..message(topic, "old") };
        admin.publish(publish, QoS::AtLeastOnce);
    }
    admin.subscribe_at("a/#", QoS::AtMostOnce);
    admin.subscribe_at("x", QoS::AtMostOnce);

    let (mut anna, _) = Client::open(broker.plain, as_user("anna", "anna", "1"));
    assert!(!anna.publish(message("a/1", "yes"), QoS::AtLeastOnce).is_error());
    assert_eq!(anna.publish(message("x", "no"), QoS::AtLeastOnce), ReasonCode::NotAuthorized);
    assert_eq!(anna.publish(message("x", "no"), QoS::ExactlyOnce), ReasonCode::NotAuthorized);
    anna.publish(message("x", "no"), QoS::AtMostOnce);
    assert_eq!(admin.message(), ("a/1".to_owned(), "yes".to_owned()));
    admin.expect_nothing();

    for (filter, granted) in [("a/#", false), ("kept", false), ("b/secret", false), ("#", true)] {
        let reason = anna.subscribe(filter, SubscriptionOptions::default());
        assert_eq!(reason == ReasonCode::NotAuthorized, !granted, "{filter}: {reason:?}");
    }
    // Of all retained messages, the one that she may have.
    assert_eq!(anna.message().0, "retained/1");
    let (mut writer, _) = Client::open(broker.plain, as_user("writer", "admin", "2"));
    for topic in ["b/secret", "kept", "a/1", "b/2"] {
        writer.publish(message(topic, "new"), QoS::AtLeastOnce);
    }
    assert_eq!(anna.message(), ("b/2".to_owned(), "new".to_owned()));
}

#[test]
fn a_client_need_not_be_told_that_it_is_for_the_rules() {
    let (_site, broker) = with_users(&[("anna", "1")], |broker| {
        broker.auth.rules = vec![rule(&[], &["a"], &["a"], &[])];
        broker.auth.tell_denied = false;
    });
    let (mut anna, _) = Client::open(broker.plain, as_user("c", "anna", "1"));
    for (topic, reason) in [
        ("a", ReasonCode::NoMatchingSubscribers),
        ("b", ReasonCode::UnspecifiedError),
        // What is the broker's own is no secret.
        ("$SYS/b", ReasonCode::NotAuthorized),
    ] {
        assert_eq!(anna.publish(message(topic, ""), QoS::AtLeastOnce), reason, "{topic}");
    }
    assert_eq!(anna.publish(message("b", ""), QoS::ExactlyOnce), ReasonCode::UnspecifiedError);
    for (filter, reason) in [("a", ReasonCode::Success), ("b", ReasonCode::UnspecifiedError)] {
        assert_eq!(anna.subscribe(filter, SubscriptionOptions::default()), reason, "{filter}");
    }
}

#[test]
fn a_will_is_a_message_too() {
    let rules = vec![rule(&["anna"], &["a/#"], &[], &[])];
    let (_site, broker) = with_users(&[("anna", "1")], |broker| broker.auth.rules = rules);
    for (topic, reason) in [("a/gone", ReasonCode::Success), ("b/gone", ReasonCode::NotAuthorized)] {
        let connect = Connect { will: Some(will(topic, 0)), ..as_user("anna", "anna", "1") };
        assert_eq!(Client::open(broker.plain, connect).1.reason, reason, "{topic}");
    }
}

#[test]
fn a_client_identifier_belongs_to_its_user() {
    let (_site, broker) = with_users(&[("anna", "1"), ("bob", "2")], |broker| broker.auth.anonymous = Anonymous::On);
    let named = |connect: Connect, user: &str, password: &str| {
        let Connect { username, password, .. } = as_user("", user, password);
        Connect { username, password, ..connect }
    };
    let (anna, connack) = Client::open(broker.plain, named(resume("c"), "anna", "1"));
    assert_eq!(connack.reason, ReasonCode::Success);
    for other in [named(resume("c"), "bob", "2"), named(connect("c"), "bob", "2"), connect("c")] {
        assert_eq!(Client::open(broker.plain, other).1.reason, ReasonCode::ClientIdentifierNotValid);
    }
    // Hers, whether she is there or not; and then nobody's.
    anna.vanish();
    broker.wait_for("her end", |state| state["connections"] == 0);
    assert_eq!(
        Client::open(broker.plain, named(resume("c"), "bob", "2")).1.reason,
        ReasonCode::ClientIdentifierNotValid
    );
    let (anna, connack) = Client::open(broker.plain, named(connect("c"), "anna", "1"));
    assert!(!connack.session_present && connack.reason == ReasonCode::Success);
    anna.disconnect(ReasonCode::Success);
    broker.wait_for("the session's end", |state| state["sessions"] == 0);
    assert_eq!(Client::open(broker.plain, named(connect("c"), "bob", "2")).1.reason, ReasonCode::Success);
}

#[test]
fn many_at_once_are_all_answered() {
    let (_site, broker) = with_users(&[("anna", "secret")], |broker| broker.connect_timeout = PATIENCE);
    let mut all: Vec<_> = (0..12)
        .map(|number| {
            let password = if number % 2 == 0 { "secret" } else { "wrong" };
            let mut client = Client::raw(broker.plain, Version::V5);
            client.send(&Packet::Connect(Box::new(as_user(&format!("c{number}"), "anna", password))));
            client
        })
        .collect();
    for (number, client) in all.iter_mut().enumerate() {
        let expected = if number % 2 == 0 { ReasonCode::Success } else { ReasonCode::BadUserNameOrPassword };
        assert!(matches!(client.receive(), Packet::ConnAck(connack) if connack.reason == expected));
    }
}
