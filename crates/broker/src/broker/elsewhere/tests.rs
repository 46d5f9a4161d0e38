use std::time::Duration;

use evermq_mqtt::Text;

use super::*;
use crate::broker::Accepted;
use crate::broker::tests::{FakeMesh, broker, connect, with_will};
use crate::presence::Facts;

/// A broker with peers.
fn meshed() -> (Arc<Broker>, Arc<FakeMesh>, Arc<dyn Clients>) {
    let (broker, mesh) = broker();
    mesh.is_alone.store(false, std::sync::atomic::Ordering::Relaxed);
    let clients = mesh.clients.lock().clone().unwrap();
    (broker, mesh, clients)
}

fn claim(id: &str, time: u64, clean_start: bool) -> Claim {
    let stamp = Stamp { time, origin: "there".into() };
    Claim { client_id: Text::new(id).unwrap(), user: None, stamp, clean_start }
}

/// A client whose connection can be found.
fn stand(broker: &Broker, accepted: &Accepted) {
    let Facts { clean_start, .. } = accepted.facts;
    let claim = broker.stand(&accepted.mailbox, &mut accepted.mailbox.lock(), clean_start).unwrap();
    broker.backbone.claim(claim);
}

fn closing(accepted: &Accepted) -> Option<Closing> {
    accepted.mailbox.lock().close.as_deref().cloned()
}

const LATER: u64 = 1_000_000;

#[test]
fn an_older_connection_ends_and_a_newer_one_stays() {
    let (broker, mesh, clients) = meshed();
    let accepted = broker.connect(connect("c"), clock()).unwrap();
    assert!(!clients.claimed(&claim("c", LATER, false), "here"), "its stamp is still to come, and will be later");
    assert_eq!(clients.connected(), []);
    stand(&broker, &accepted);
    let [own] = &mesh.claims.lock()[..] else { panic!("one claim") };
    assert_eq!((own.client_id.as_str(), own.clean_start), ("c", false));
    assert_eq!(&clients.connected()[..], std::slice::from_ref(own));
    assert!(!clients.claimed(&claim("c", own.stamp.time - 1, false), "here"));
    assert!(!clients.claimed(&claim("other", LATER, false), "here"));
    assert_eq!(closing(&accepted), None);
    assert!(clients.claimed(&claim("c", LATER, false), "here"));
    let taken_over = Closing { reason: ReasonCode::SessionTakenOver, text: None, ends_session: false };
    assert_eq!(closing(&accepted), Some(taken_over));
}

#[test]
fn a_clean_start_there_ends_the_session_here() {
    let (broker, _mesh, clients) = meshed();
    let connected = broker.connect(connect("connected"), clock()).unwrap();
    stand(&broker, &connected);
    assert!(clients.claimed(&claim("connected", LATER, true), "here"));
    assert!(closing(&connected).unwrap().ends_session);

    let away = broker.connect(connect("away"), clock()).unwrap();
    stand(&broker, &away);
    broker.update(&away.mailbox, clock(), |session| session.handle_lost(clock()));
    assert!(!clients.claimed(&claim("away", LATER, false), "here"), "it stays for when the client comes back");
    assert!(broker.registry.get(away.mailbox.client_id()).is_some());
    assert!(!clients.claimed(&claim("away", 1, true), "here"), "that was before it connected here");
    assert!(clients.claimed(&claim("away", LATER, true), "here"));
    assert!(broker.registry.get(away.mailbox.client_id()).is_none());
}

#[test]
fn a_will_that_waits_does_not_go_out_while_the_client_goes_on_elsewhere() {
    let (broker, mesh, clients) = meshed();
    let now = clock();
    let later = now + Duration::from_secs(30);
    for (id, is_connected) in [("connected", true), ("away", false)] {
        let accepted = broker.connect(with_will(id, 10), now).unwrap();
        stand(&broker, &accepted);
        let lose = || broker.update(&accepted.mailbox, now, |session| session.handle_lost(now));
        if !is_connected {
            lose();
        }
        assert_eq!(clients.claimed(&claim(id, LATER, false), "here"), is_connected);
        lose();
        broker.expire(later);
        assert_eq!(mesh.payloads(), <[String; 0]>::default(), "{id}");
    }
    let accepted = broker.connect(with_will("stays away", 10), now).unwrap();
    stand(&broker, &accepted);
    broker.update(&accepted.mailbox, now, |session| session.handle_lost(now));
    assert!(clients.claimed(&claim("stays away", LATER, true), "here"), "its session ends, and with it the delay");
    assert_eq!(mesh.payloads(), ["stays away"]);
}

#[test]
fn nobody_takes_what_is_another_users() {
    let (broker, _mesh, clients) = meshed();
    let accepted = broker.connect(connect("c"), clock()).unwrap();
    stand(&broker, &accepted);
    let theirs = Claim { user: Some("somebody".into()), ..claim("c", LATER, true) };
    assert!(!clients.claimed(&theirs, "here"));
    assert_eq!(closing(&accepted), None);
}

#[test]
fn a_broker_alone_tells_nobody_until_there_are_others() {
    let (broker, mesh) = broker();
    let accepted = broker.connect(connect("c"), clock()).unwrap();
    assert_eq!(broker.stand(&accepted.mailbox, &mut accepted.mailbox.lock(), true), None, "nobody to tell");
    mesh.is_alone.store(false, std::sync::atomic::Ordering::Relaxed);
    let clients = mesh.clients.lock().clone().unwrap();
    let [claim] = &clients.connected()[..] else { panic!("one") };
    assert_eq!((claim.client_id.as_str(), claim.clean_start), ("c", false));
}
