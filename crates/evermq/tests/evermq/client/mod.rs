//! `evermq pub` and `evermq sub` against Debian's mosquitto, plain and over mutual TLS, and against a server that fails
//! where it hurts.

mod broker;
mod certificates;
mod process;
mod server;

use evermq_mqtt::packet::{Disconnect, SubAck};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, Text, TopicName, Version};

use broker::Broker;
use certificates::Certificates;
use process::{From, Running, evermq, program};
use server::{Server, ack};

/// Starts a subscriber and waits until the server has its subscription; its standard error shows packets.
fn subscribed(line: &str) -> Running {
    let mut running = evermq(&format!("sub -d {line}"));
    running.wait_for(From::Stderr, "<- SUBACK");
    running
}

#[test]
fn every_version_and_qos_reaches_mosquitto_sub() {
    let mut broker = Broker::plain();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in 0..3 {
            let at = broker.at();
            let reader = program(&format!("mosquitto_sub {at} -t t/{version}/# -q 2 -v -C 1"));
            broker.wait_for("Sending SUBACK");
            evermq(&format!("pub {at} -V {version} -t t/{version}/{qos} -m hello -q {qos}")).end().good();
            assert_eq!(reader.end().good(), format!("t/{version}/{qos} hello\n"));
        }
    }
}

#[test]
fn every_version_and_qos_arrives_from_mosquitto_pub() {
    let broker = Broker::plain();
    let at = broker.at();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in 0..3 {
            let reader = subscribed(&format!("{at} -V {version} -t t/+ -q 2 -v -C 2"));
            program(&format!("mosquitto_pub {at} -t t/{qos} -m one -q {qos}")).end().good();
            program(&format!("mosquitto_pub {at} -t t/{qos} -n -q {qos}")).end().good();
            let ended = reader.end();
            assert!(ended.stderr.contains(&format!("QoS {qos}")), "{}", ended.stderr);
            assert_eq!(ended.good(), format!("t/{qos} one\nt/{qos} (null)\n"));
        }
    }
}

#[test]
fn payloads_come_from_everywhere() {
    let broker = Broker::plain();
    let at = broker.at();
    let mut reader = subscribed(&format!("{at} -t t -C 8 -q 1"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "from a file").expect("a file");
    evermq(&format!("pub {at} -t t -m -minus")).end().good();
    evermq(&format!("pub {at} -t t -f {}", file.path().display())).end().good();
    evermq(&format!("pub {at} -t t -n -q 1")).end().good();
    let mut all = evermq(&format!("pub {at} -t t -s"));
    all.write("all of\nstdin");
    all.end().good();
    let mut lines = evermq(&format!("pub {at} -t t -l -q 1"));
    lines.write("one\n");
    reader.wait_for(From::Stdout, "one");
    lines.write("two");
    lines.end().good();
    evermq(&format!("pub {at} -t t -m again --repeat 2 --repeat-delay 0.05")).end().good();
    assert_eq!(reader.end().good(), "-minus\nfrom a file\n\nall of\nstdin\none\ntwo\nagain\nagain\n");
}

#[test]
fn retained_and_filtered_out_messages_are_not_printed() {
    let broker = Broker::plain();
    let at = broker.at();
    evermq(&format!("pub {at} -t t/kept -m stale -r -q 1")).end().good();
    assert_eq!(evermq(&format!("sub {at} -t t/# -C 1 -N")).end().good(), "stale");
    let reader = subscribed(&format!("{at} -t t/# -R -T t/noise -T t/+/noise -C 1"));
    for topic in ["t/noise", "t/a/noise", "t/wanted"] {
        evermq(&format!("pub {at} -t {topic} -m {topic}")).end().good();
    }
    assert_eq!(reader.end().good(), "t/wanted\n");
}

#[test]
fn properties_of_mqtt_5_go_through() {
    let mut broker = Broker::plain();
    let at = broker.at();
    let format = "%t|%p|%C|%D|%E|%F|%R|%P";
    let reader = program(&format!("mosquitto_sub {at} -V mqttv5 -t five -C 1 -F {format}"));
    broker.wait_for("Sending SUBACK");
    let properties = "-D publish content-type text/plain -D publish correlation-data abc \
        -D publish message-expiry-interval 60 -D publish payload-format-indicator 1 -D publish response-topic answer \
        -D publish user-property k v -D connect user-property c 1 -D disconnect user-property d 1";
    evermq(&format!("pub {at} -V mqttv5 -t five -m hi -q 1 {properties} -x 10")).end().good();
    assert_eq!(reader.end().good(), "five|hi|text/plain|abc|60|1|answer|k:v\n");

    let identified = "-D subscribe subscription-identifier 5 -D subscribe user-property s 1";
    let reader = subscribed(&format!("{at} -V mqttv5 -t five -C 1 {identified} -D connect topic-alias-maximum 5"));
    program(&format!("mosquitto_pub {at} -V mqttv5 -t five -m back")).end().good();
    assert_eq!(reader.end().good(), "back\n");
}

#[test]
fn a_session_kept_with_c_gets_what_came_meanwhile() {
    let broker = Broker::plain();
    let at = broker.at();
    for version in ["mqttv311", "mqttv5"] {
        let session = format!("{at} -V {version} -c -i keeper-{version} -t kept/{version} -q 2");
        evermq(&format!("sub {session} -E")).end().good();
        evermq(&format!("pub {at} -t kept/{version} -m meanwhile -q 2")).end().good();
        assert_eq!(evermq(&format!("sub {session} -C 1")).end().good(), "meanwhile\n");
        let forgotten = evermq(&format!("sub {session} -W 0.3")).end();
        assert_eq!(forgotten.stdout, "", "the message was acknowledged");
        forgotten.bad(27);
        evermq(&format!("sub {session} -U kept/{version} -E")).end().good();
    }
}

#[test]
fn a_will_is_published_when_the_client_dies_and_not_when_it_ends() {
    let broker = Broker::plain();
    let at = broker.at();
    let reader = subscribed(&format!("{at} -t will -q 2 -C 1"));
    let will = "--will-topic will --will-qos 2 --will-payload";
    let polite = subscribed(&format!("{at} -t x {will} polite"));
    polite.signal("INT");
    polite.end().good();
    let killed = subscribed(&format!("{at} -t x {will} killed"));
    killed.signal("KILL");
    assert_eq!(reader.end().good(), "killed\n");
}

#[test]
fn the_exit_status_says_what_happened() {
    let broker = Broker::start("allow_anonymous false\n");
    let at = broker.at();
    let text = evermq(&format!("pub {at} -t t -n")).end().bad(5);
    assert!(text.contains("refused the connection: Not authorized") && text.contains("-u and -P"), "{text}");
    assert!(evermq(&format!("sub {at} -V mqttv5 -t t")).end().bad(135).contains("(code 135)"));
    assert_eq!(evermq(&format!("pub {at} -t t -n --quiet")).end().bad(5), "");

    let nobody = format!("-h 127.0.0.1 -p {}", evermq_ports::free_port());
    let text = evermq(&format!("pub {nobody} -t t -n")).end().bad(1);
    assert!(text.contains("connection refused; nothing listens there"), "{text}");
    let text = evermq("pub -h name.invalid -t t -n").end().bad(1);
    assert!(text.contains("cannot resolve name.invalid"), "{text}");

    let open = Broker::plain();
    let at = open.at();
    let text = evermq(&format!("sub {at} -t t -W 0.2")).end().bad(27);
    assert!(text.contains("time is up"), "{text}");
}

#[test]
fn a_wrong_command_line_says_what_to_change() {
    for (line, part) in [
        ("pub -t a/# -n", "+ and # are for subscriptions only"),
        ("pub -t a -n -c", "add -i ID"),
        ("pub -t a -n -P secret", "add -u NAME or -V mqttv5"),
        ("pub -t a -n -x 5", "add -V mqttv5"),
        ("pub -t a -n -D publish content-type x", "add -V mqttv5"),
        ("pub -t a -n -V 5 -D publish nothing x", "no such property"),
        ("pub -t a -n -V 5 -D subscribe user-property a b", "sends no subscribe"),
        ("pub -t a -n -V 5 -D will content-type x", "add --will-topic"),
        ("pub -t a -n -q 3", "QoS is 0, 1 or 2"),
        ("pub -t a", "required"),
        ("pub -t a -n -m x", "cannot be used with"),
        ("pub -t a -n --cafile /nonexistent", "--cafile: cannot use /nonexistent"),
        ("pub -t a -n --cert x --key y", "--cafile"),
        ("sub -t a#", "wildcard must be a whole level"),
        ("sub", "--topic"),
    ] {
        let text = evermq(line).end().bad(2);
        assert!(text.contains(part), "{line}: {text}");
    }
    assert!(evermq("sub --help").end().good().contains("-h, --host <HOST>"));
}

#[test]
fn mutual_tls_works_and_each_failure_says_why() {
    let certificates = Certificates::new();
    let broker = Broker::start(&certificates.mosquitto("server"));
    let port = broker.port;
    let good = certificates.flags("ca", "client");
    for version in ["mqttv311", "mqttv5"] {
        let reader = subscribed(&format!("-h localhost -p {port} -V {version} -t t -C 1 -q 2 {good}"));
        evermq(&format!("pub -h localhost -p {port} -V {version} -t t -m secret -q 2 {good}")).end().good();
        assert_eq!(reader.end().good(), "secret\n");
    }

    let ca = certificates.path("ca.crt");
    let mut failures = vec![
        (certificates.flags("other-ca", "client"), "not signed by the CA in", "localhost"),
        (certificates.flags("ca", "other"), "does not trust the CA that signed", "localhost"),
        (format!("--cafile {ca}"), "asks for a client certificate; give one with --cert and --key", "localhost"),
        (good.clone(), "not for 127.0.0.1 but for", "127.0.0.1"),
        (String::new(), "with TLS", "localhost"),
    ];
    for (flags, part, host) in failures.drain(..) {
        let text = evermq(&format!("pub -h {host} -p {port} -t t -n {flags}")).end().bad(1);
        // OpenSSL closes a plain connection without a word, or with an alert, as the version may be.
        let is_plain = flags.is_empty() && text.contains("is it a TLS port (then --cafile is needed)");
        assert!(text.contains(part) || is_plain, "{flags}: {text}");
    }
    evermq(&format!("pub -h 127.0.0.1 -p {port} -t t -n {good} --insecure")).end().good();

    let plain = Broker::plain();
    let text = evermq(&format!("pub -h localhost -p {} -t t -n {good}", plain.port)).end().bad(1);
    assert!(text.contains("does not speak TLS there") || text.contains("is it a TLS port"), "{text}");
}

#[test]
fn expired_and_mismatched_certificates_are_told_apart() {
    let certificates = Certificates::new();
    certificates.certificate("expired", "ca", "subjectAltName=DNS:localhost", -1);
    let broker = Broker::start(&certificates.mosquitto("expired"));
    let at = format!("-h localhost -p {}", broker.port);
    for insecure in ["", "--insecure"] {
        let flags = certificates.flags("ca", "client");
        let text = evermq(&format!("pub {at} -t t -n {flags} {insecure}")).end().bad(1);
        assert!(text.contains("the server's certificate has expired"), "{text}");
    }
    let cert = certificates.path("client.crt");
    let key = certificates.path("other.key");
    let ca = certificates.path("ca.crt");
    let text = evermq(&format!("pub {at} -t t -n --cafile {ca} --cert {cert} --key {key}")).end().bad(2);
    assert!(text.contains("do not go together"), "{text}");
    let text = evermq(&format!("pub {at} -t t -n --cafile {key}")).end().bad(2);
    assert!(text.contains("holds no certificate"), "{text}");
}

#[test]
fn both_outlive_the_server() {
    let port = evermq_ports::free_port();
    let settings = "allow_anonymous true\n";
    let broker = Broker::start_on(port, settings);
    let at = broker.at();
    let mut reader = subscribed(&format!("{at} -t t -q 1 -C 3"));
    let mut writer = evermq(&format!("pub {at} -t t -q 1 -l"));
    writer.write("one\n");
    reader.wait_for(From::Stdout, "one");
    drop(broker);
    writer.wait_for(From::Stderr, "reconnecting to");
    reader.wait_for(From::Stderr, "reconnecting to");
    let _broker = Broker::start_on(port, settings);
    writer.wait_for(From::Stderr, "connected again to");
    reader.wait_for(From::Stderr, "connected again to");
    reader.wait_for(From::Stderr, "<- SUBACK");
    writer.write("two\nthree\n");
    writer.end().good();
    assert_eq!(reader.end().good(), "one\ntwo\nthree\n");
}

#[test]
fn an_unacknowledged_line_is_sent_again() {
    for (session_present, version, word) in [(true, Version::V5, "mqttv5"), (false, Version::V4, "mqttv311")] {
        let server = Server::new();
        let at = server.at();
        let mut writer = evermq(&format!("pub {at} -V {word} -c -i me -t t -l -q 1"));
        writer.write("one\ntwo\n");
        let (mut peer, connect) = server.welcome(version, false);
        assert!(!connect.clean_start);
        let first = publish(&mut peer.read());
        let second = publish(&mut peer.read());
        let ids = (first.packet_id.expect("an identifier"), second.packet_id.expect("an identifier"));
        assert!(!first.dup && !second.dup && ids.0 != ids.1);
        peer.write(&Packet::PubAck(ack(ids.0)));
        writer.write("three\n");
        let third = publish(&mut peer.read());
        peer.close();

        let (mut peer, connect) = server.welcome(version, session_present);
        assert_eq!(&*connect.client_id, "me");
        for expected in [&second, &third] {
            let again = publish(&mut peer.read());
            assert_eq!(again, Publish { dup: session_present, ..expected.clone() });
            peer.write(&Packet::PubAck(ack(again.packet_id.expect("an identifier"))));
        }
        let ended = std::thread::spawn(move || writer.end());
        assert!(matches!(peer.read(), Packet::Disconnect(_)));
        assert_eq!(peer.read_or_end(), None);
        drop(peer);
        ended.join().expect("it ends").good();
    }
}

#[test]
fn a_qos_2_message_that_comes_again_is_printed_once() {
    let server = Server::new();
    let at = server.at();
    let reader = evermq(&format!("sub {at} -c -i me -t t -q 2 -C 2"));
    let arrival = |id: u16, dup, payload: &'static str| {
        let topic = TopicName::new(Text::new("t").expect("a string")).expect("a topic");
        let packet_id = Some(evermq_mqtt::PacketId(id.try_into().expect("above 0")));
        let (qos, payload) = (QoS::ExactlyOnce, payload.into());
        Packet::Publish(Publish { dup, qos, retain: false, topic, packet_id, properties: None, payload })
    };
    let (mut peer, _) = server.welcome(Version::V4, false);
    let Packet::Subscribe(subscribe) = peer.read() else { panic!("no SUBSCRIBE") };
    let reasons = vec![ReasonCode::GrantedQoS2];
    peer.write(&Packet::SubAck(SubAck { packet_id: subscribe.packet_id, reasons, properties: None }));
    peer.write(&arrival(7, false, "once"));
    assert!(matches!(peer.read(), Packet::PubRec(_)));
    peer.close();

    let (mut peer, _) = server.welcome(Version::V4, true);
    peer.write(&arrival(7, true, "once"));
    let Packet::PubRec(received) = peer.read() else { panic!("subscribes again, or no PUBREC") };
    peer.write(&Packet::PubRel(ack(received.packet_id)));
    assert!(matches!(peer.read(), Packet::PubComp(_)));
    peer.write(&arrival(8, false, "twice"));
    assert!(matches!(peer.read(), Packet::PubRec(_)));
    assert!(matches!(peer.read(), Packet::Disconnect(_)));
    drop(peer);
    assert_eq!(reader.end().good(), "once\ntwice\n");
}

#[test]
fn a_silent_server_is_noticed_by_its_missing_pong() {
    let server = Server::new();
    let at = server.at();
    let mut reader = evermq(&format!("sub {at} -t t -k 1"));
    let (mut peer, connect) = server.welcome(Version::V4, false);
    assert_eq!(connect.keep_alive, 1);
    assert!(matches!(peer.read(), Packet::Subscribe(_)));
    assert!(matches!(peer.read(), Packet::PingReq));
    reader.wait_for(From::Stderr, "did not answer a ping");
    let (mut second, _) = server.welcome(Version::V4, false);
    assert!(matches!(second.read(), Packet::Subscribe(_)));
    reader.signal("TERM");
    assert!(matches!(second.read(), Packet::Disconnect(_)));
    drop(second);
    reader.end().good();
}

#[test]
fn a_server_that_takes_the_session_away_ends_the_client() {
    let server = Server::new();
    let reader = evermq(&format!("sub {} -V mqttv5 -t t", server.at()));
    let (mut peer, _) = server.welcome(Version::V5, false);
    peer.read();
    peer.write(&Packet::Disconnect(Disconnect { reason: ReasonCode::SessionTakenOver, properties: None }));
    let text = reader.end().bad(1);
    assert!(text.contains("the server disconnected: Session taken over"), "{text}");
}

#[test]
fn a_server_that_speaks_something_else_is_named() {
    let server = Server::new();
    let writer = evermq(&format!("pub {} -t t -n", server.at()));
    let mut peer = server.accept(Version::V4);
    peer.read();
    peer.write_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let text = writer.end().bad(1);
    assert!(text.contains("does not speak MQTT"), "{text}");

    let writer = evermq(&format!("pub {} -t t -n", server.at()));
    let mut peer = server.accept(Version::V4);
    peer.read();
    peer.write_bytes(&[21, 3, 3, 0, 2, 2, 10]);
    let text = writer.end().bad(1);
    assert!(text.contains("answers with TLS") && text.contains("--cafile"), "{text}");
}

#[test]
fn messages_that_the_server_does_not_accept_fail_the_command() {
    let server = Server::new();
    let writer = evermq(&format!("pub {} -V mqttv5 -t t -m no -q 1", server.at()));
    let (mut peer, _) = server.welcome(Version::V5, false);
    let refused = publish(&mut peer.read()).packet_id.expect("an identifier");
    peer.write(&Packet::PubAck(evermq_mqtt::packet::Ack { reason: ReasonCode::QuotaExceeded, ..ack(refused) }));
    assert!(matches!(peer.read(), Packet::Disconnect(_)));
    drop(peer);
    let text = writer.end().bad(1);
    assert!(text.contains("did not accept 1 of the messages: Quota exceeded"), "{text}");
}

fn publish(packet: &mut Packet) -> Publish {
    match packet {
        Packet::Publish(publish) => publish.clone(),
        other => panic!("{other:?} is no PUBLISH"),
    }
}
