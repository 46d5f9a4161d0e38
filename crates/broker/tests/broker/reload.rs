//! A changed cluster file, and changed files that it names, while clients stay connected; a bad one changes nothing.

use std::process::Command;

use evermq_access::Hash;
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{QoS, ReasonCode, Version};
use nix::sys::signal::Signal;
use rcgen::SerialNumber;

use crate::client::{Client, connect, message, resume, text};
use crate::listeners::tls;
use crate::program::Program;
use crate::running::Site;

fn as_user(client_id: &str, user: &str) -> Connect {
    Connect { username: Some(text(user)), password: Some("p".into()), ..connect(client_id) }
}

fn line(user: &str, password: &str) -> String {
    format!("{user}:{}\n", Hash::make(password.as_bytes()))
}

#[test]
fn a_revoked_certificates_session_ends_and_the_others_stay() {
    let site = Site::new();
    site.ca.revoke("revoked.crl", &[99], 1);
    let program = Program::start(&site, "[broker.auth]\ncrl = [\"revoked.crl\"]\n", None);
    let device = |name: &str, serial: u64| {
        site.ca.issue_as(name, 1, |params| params.serial_number = Some(SerialNumber::from(serial)))
    };
    let (good, bad, gone) = (device("device-1", 1), device("device-2", 2), device("device-3", 99));
    let enter = |own, connect| Client::over(tls(program.tls, own, Some(own)), connect).0;
    let mut stays = enter(&good, connect("stays"));
    let mut goes = enter(&bad, connect("goes"));
    let mut goes_too = enter(&bad, Connect { version: Version::V4, ..connect("goes-too") });
    assert!(!Client::raw_over(tls(program.tls, &gone, Some(&gone)), Version::V5).try_connect(connect("never")));
    program.wait_for("a word for the operator", || program.log().contains("TLS with a client failed"));

    assert_eq!(program.reload().unwrap()["changed"], false);
    site.ca.revoke("revoked.crl", &[99, 2], 1);
    let done = program.reload().unwrap();
    assert_eq!((&done["files"], &done["closed"]), (&true.into(), &2.into()), "{done}");
    goes.expect_disconnect(ReasonCode::NotAuthorized);
    assert_eq!(goes_too.next(), None);
    stays.expect_nothing();
    assert!(!Client::raw_over(tls(program.tls, &bad, Some(&bad)), Version::V5).try_connect(connect("goes")));
    enter(&good, connect("comes")).expect_nothing();

    // A list that has expired is refused, and the one before stays.
    site.ca.revoke("revoked.crl", &[1], -1);
    let error = program.reload().unwrap_err();
    assert!(error.contains("has expired"), "{error}");
    stays.expect_nothing();
}

#[test]
fn a_mistake_changes_nothing_and_is_told_with_its_place() {
    let site = Site::new();
    let directory = site.directory.path();
    std::fs::write(directory.join("passwords"), line("anna", "p")).unwrap();
    std::fs::write(directory.join("acl"), "user anna\ntopic a/#\n").unwrap();
    let rules = "[broker.auth]\nanonymous = \"off\"\npassword_file = \"passwords\"\nacl_file = \"acl\"\n";
    let program = Program::start(&site, rules, None);
    let (mut anna, _) = Client::open(program.plain, as_user("anna", "anna"));
    let refused = |wanted: &str| {
        let error = program.reload().unwrap_err();
        assert!(error.contains(wanted), "{error}");
    };
    std::fs::write(directory.join("acl"), "user anna\ntopic red a/#\n").unwrap();
    refused("acl:2:7: error: \"red\" is no kind of access");
    std::fs::write(directory.join("acl"), "user nobody\n").unwrap();
    std::fs::write(directory.join("passwords"), "anna:p\n").unwrap();
    refused("passwords:1:1: error: user \"anna\": this is no hash");
    program.write("max_inflight = \"many\"\n");
    refused("evermq.toml:");
    std::fs::remove_file(directory.join("passwords")).unwrap();
    program.write(rules);
    refused("cannot read the password file");
    assert!(!anna.publish(message("a/b", ""), QoS::AtLeastOnce).is_error());
    assert_eq!(Client::open(program.plain, as_user("again", "anna")).1.reason, ReasonCode::Success);
    assert!(program.log().contains("the cluster file is not in force"), "{}", program.log());
}

#[test]
fn users_and_rules_change_under_live_sessions() {
    let site = Site::new();
    let directory = site.directory.path();
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    let (anna, bob, carl) = (line("anna", "p"), line("bob", "p"), line("carl", "p"));
    write("passwords", format!("{anna}{bob}{carl}"));
    write("acl", "pattern readwrite %u/#\n".to_owned());
    let program = Program::start(&site, "[broker.auth]\npassword_file = \"passwords\"\nacl_file = \"acl\"\n", None);
    let enter = |connect| Client::open(program.plain, connect).0;
    let (mut stays, mut goes, mut changed) =
        (enter(as_user("1", "anna")), enter(as_user("2", "bob")), enter(as_user("3", "carl")));
    let mut nobody = enter(connect("4"));
    let mut writer = enter(as_user("writer", "anna"));
    stays.subscribe_at("anna/#", QoS::AtMostOnce);
    assert!(!writer.publish(message("anna/x", ""), QoS::AtLeastOnce).is_error());
    assert_eq!(stays.message().0, "anna/x");

    // bob is gone, carl has another password, nobody is let in any more, and anna may only write.
    write("passwords", format!("{anna}{}", line("carl", "new")));
    write("acl", "pattern write %u/#\n".to_owned());
    program
        .write("workers = 1\n[broker.auth]\nanonymous = \"off\"\npassword_file = \"passwords\"\nacl_file = \"acl\"\n");
    program.signal(Signal::SIGHUP);
    for client in [&mut goes, &mut changed, &mut nobody] {
        client.expect_disconnect(ReasonCode::NotAuthorized);
    }
    program.wait_for("the word", || program.log().contains("the cluster file is in force"));
    assert!(program.log().contains("broker.workers"), "{}", program.log());
    assert_eq!(program.reload().unwrap()["restart"], serde_json::json!(["broker.workers"]));
    assert!(!writer.publish(message("anna/x", ""), QoS::AtLeastOnce).is_error());
    stays.expect_nothing();
    for (connect, reason) in [
        (as_user("2", "bob"), ReasonCode::BadUserNameOrPassword),
        (as_user("3", "carl"), ReasonCode::BadUserNameOrPassword),
        (connect("4"), ReasonCode::NotAuthorized),
        (as_user("5", "anna"), ReasonCode::Success),
    ] {
        assert_eq!(Client::open(program.plain, connect).1.reason, reason);
    }
}

/// What waited when the rules changed does not come any more, whoever waits for it and however it came there.
#[test]
fn messages_that_wait_are_asked_about_again() {
    let site = Site::new();
    let directory = site.directory.path();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("acl", "topic readwrite #\n");
    let program = Program::start(&site, "[broker.auth]\nacl_file = \"acl\"\n", None);
    let stay = |id: &str, filters: &[&str]| {
        let mut client = Client::open(program.plain, resume(id)).0;
        filters.iter().for_each(|filter| client.subscribe_at(filter, QoS::ExactlyOnce));
        client.disconnect(ReasonCode::Success);
    };
    stay("absent", &["#"]);
    stay("member", &["$share/g/shared/#"]);
    let mut writer = program.client("writer");
    let mut watcher = program.client("watcher");
    watcher.subscribe_at("wills/#", QoS::AtLeastOnce);
    let mut delayed = resume("dies");
    delayed.will = Some(crate::client::will("wills/secret", 3600));
    Client::open(program.plain, delayed).0.vanish();
    for (topic, qos) in [("open/1", QoS::AtLeastOnce), ("secret/1", QoS::AtLeastOnce), ("secret/2", QoS::ExactlyOnce)] {
        writer.publish(message(topic, ""), qos);
    }
    writer.publish(evermq_mqtt::Publish { retain: true, ..message("secret/kept", "") }, QoS::AtLeastOnce);
    writer.publish(message("shared/1", ""), QoS::AtLeastOnce);

    write("acl", "topic readwrite open/#\ntopic write secret/#\ntopic read wills/#\n");
    // All but one of `absent`'s, and the member's.
    let done = program.reload().unwrap();
    assert_eq!(done["withdrawn"], 5, "{done}");
    let (mut absent, connack) = Client::open(program.plain, resume("absent"));
    assert!(connack.session_present);
    assert_eq!(absent.message().0, "open/1");
    absent.expect_nothing();
    assert!(!absent.subscribe("secret/kept", evermq_mqtt::packet::SubscriptionOptions::default()).is_error());
    absent.expect_nothing();
    Client::open(program.plain, resume("member")).0.expect_nothing();
    // Subscriptions stay, and what they bring is asked about.
    writer.publish(message("secret/3", ""), QoS::AtLeastOnce);
    writer.publish(message("open/2", ""), QoS::AtLeastOnce);
    assert_eq!(absent.message().0, "open/2");

    // Allowed again, they bring it again.
    write("acl", "topic readwrite #\n");
    assert_eq!(program.reload().unwrap()["withdrawn"], 0);
    writer.publish(message("secret/4", ""), QoS::AtLeastOnce);
    assert_eq!(absent.message().0, "secret/4");
    // The will went with the right to publish it: the session's end does not bring it.
    assert!(!Client::open(program.plain, connect("dies")).1.session_present);
    watcher.expect_nothing();
}

#[test]
fn limits_change_under_live_sessions() {
    let site = Site::new();
    let before = "max_queued_messages = 10\nmax_packet_size = \"2 KiB\"\nmax_retained_messages = 1\nconnect_timeout = \"5m\"\n\
                  sys_interval = \"0s\"\nmax_subscriptions = 1\n[broker.auth]\nanonymous = \"on\"\n";
    let program = Program::start(&site, before, None);
    let count = |key: &str| program.ask("state").unwrap()["messages"][key].as_u64().unwrap();
    let (mut absent, connack) = Client::open(program.plain, resume("absent"));
    assert_eq!(connack.properties.maximum_packet_size, Some(2048));
    absent.subscribe_at("t", QoS::AtLeastOnce);
    absent.disconnect(ReasonCode::Success);
    let mut present = program.client("present");
    let publish = |client: &mut Client, messages: usize| {
        (0..messages).for_each(|_| assert!(!client.publish(message("t", ""), QoS::AtLeastOnce).is_error()));
    };
    let keep = |client: &mut Client, topic: &str| {
        let publish = evermq_mqtt::Publish { retain: true, ..message(topic, "kept") };
        assert!(!client.publish(publish, QoS::AtLeastOnce).is_error());
    };
    publish(&mut present, 12);
    assert_eq!(count("dropped"), 2);
    keep(&mut present, "r/1");
    keep(&mut present, "r/2");
    assert_eq!((count("retained_refused"), program.ask("state").unwrap()["retained"].as_u64()), (1, Some(1)));
    present.subscribe_at("x/1", QoS::AtMostOnce);
    let options = evermq_mqtt::packet::SubscriptionOptions::default;
    assert_eq!(present.subscribe("x/2", options()), ReasonCode::QuotaExceeded);

    program.write(
        "max_queued_messages = 20\nmax_packet_size = \"4 KiB\"\nmax_retained_messages = 2\nconnect_timeout = \"300ms\"\n\
         sys_interval = \"1s\"\nmax_subscriptions = 2\nmax_queued_total = \"2 MiB\"\ntcp_keepalive = \"9s\"\n\
         max_handshakes = 77\ndrain_timeout = \"1s\"\n[broker.auth]\nanonymous = \"on\"\n",
    );
    let done = program.reload().unwrap();
    assert_eq!(done["restart"], serde_json::json!([]), "{done}");
    // Queues, subscriptions and retained messages: whoever was there before.
    publish(&mut present, 12);
    assert_eq!(count("dropped"), 4);
    keep(&mut present, "r/2");
    assert_eq!(program.ask("state").unwrap()["retained"].as_u64(), Some(2));
    assert_eq!(present.subscribe("x/2", options()), ReasonCode::Success);
    assert_eq!(present.subscribe("x/3", options()), ReasonCode::QuotaExceeded);
    // What a client was told stays true for it; who comes now is told the new.
    let large = message("x", &"x".repeat(3000));
    let (mut late, connack) = Client::open(program.plain, connect("late"));
    assert_eq!(connack.properties.maximum_packet_size, Some(4096));
    assert!(!late.publish(large.clone(), QoS::AtLeastOnce).is_error());
    present.send(&evermq_mqtt::Packet::Publish(large));
    present.expect_disconnect(ReasonCode::PacketTooLarge);
    // Who says nothing has to go soon.
    assert_eq!(Client::raw(program.plain, Version::V5).next(), None);
    late.subscribe_at("$SYS/broker/uptime", QoS::AtMostOnce);
    assert!(late.message().1.ends_with(" seconds"));

    // A rate, for who is connected.
    program.write(&format!("max_publish_rate = 1\n{before}"));
    let done = program.reload().unwrap();
    assert!(done["applied"].to_string().contains("broker.max_publish_rate"), "{done}");
    assert_eq!(count("slowed"), 0);
    for _ in 0..3 {
        late.send(&evermq_mqtt::Packet::Publish(message("x", "")));
    }
    program.wait_for("a client that is slowed down", || count("slowed") > 0);
}

#[test]
fn listeners_show_a_renewed_certificate_and_nobody_is_lost() {
    let site = Site::new();
    let program = Program::start(&site, "", None);
    let own = site.ca.issue("device-1", 1);
    let shown = || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &program.tls.to_string()]).arg("-CAfile").arg(&own.ca);
        command.arg("-cert").arg(&own.cert).arg("-key").arg(&own.key).stdin(std::process::Stdio::null());
        let output = command.output().expect("openssl is needed: apt-get install openssl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("-----BEGIN CERTIFICATE-----").nth(1).unwrap_or_default().to_owned()
    };
    let mut stays = Client::over(tls(program.tls, &own, Some(&own)), connect("stays")).0;
    let before = shown();
    site.ca.issue("broker1", 1);
    assert_eq!(program.reload().unwrap()["files"], true);
    let after = shown();
    assert!(!before.is_empty() && !after.is_empty() && before != after);
    stays.expect_nothing();
    Client::over(tls(program.tls, &own, Some(&own)), connect("comes")).0.expect_nothing();
}
