//! A file system that is really full, and damage: what the operator and the clients see, and that it goes on by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use evermq_mqtt::{Publish, QoS, ReasonCode};
use nix::sched::{CloneFlags, unshare};

use crate::client::{Client, message};
use crate::program::Program;
use crate::running::{Running, Site};

/// Runs `test` on a thread that has mounts of its own, which it may make; nobody else sees them.
#[expect(clippy::print_stderr, reason = "who runs the tests is to know that one did not")]
fn with_own_mounts(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root may mount a small file system");
        return;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(&["--make-rprivate", "/"]);
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().expect("mount is needed").success(), "{arguments:?}");
}

/// Publishes a retained message of 64 KiB.
fn keep(client: &mut Client, number: usize) -> ReasonCode {
    let publish = Publish { retain: true, ..message(&format!("kept/{number}"), &"x".repeat(64 << 10)) };
    // That nobody has asked for it is no refusal.
    let reason = client.publish(publish, QoS::AtLeastOnce);
    if reason.is_error() { reason } else { ReasonCode::Success }
}

fn metric(program: &Program, status: &str) -> bool {
    let text = program.ask("metrics").unwrap()["text"].as_str().unwrap().to_owned();
    text.contains(&format!("evermq_broker_store_status{{status=\"{status}\"}} 1\n"))
}

#[test]
fn a_full_file_system_is_shown_refuses_and_resumes() {
    with_own_mounts(|| {
        let site = Site::new();
        let store = site.directory.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let at = store.to_str().unwrap();
        mount(&["-t", "tmpfs", "-o", "size=10m", "tmpfs", at]);
        let program = Program::start(&site, "[broker.store]\nsegment_size = \"1MiB\"\n", None);
        let state = || program.ask("state").unwrap();
        assert_eq!((&state()["trouble"], program.health().as_str()), (&serde_json::Value::Null, "up"));
        let mut client = program.client("c");
        client.subscribe_at("news", QoS::AtMostOnce);

        let kept = (0..200).take_while(|number| keep(&mut client, *number) == ReasonCode::Success).count();
        assert!((60..160).contains(&kept), "{kept} messages of 64 KiB in 10 MiB");
        program.wait_for("the trouble", || state()["trouble"].is_string() && program.health() == "degraded");
        let text = state()["trouble"].as_str().unwrap().to_owned();
        assert!(text.contains("no room for the store in ") && text.contains("free disk space"), "{text}");
        assert_eq!(state()["store"]["state"], "full");
        assert!(metric(&program, "full"));
        // What needs no room goes on, and what does is refused.
        assert_eq!(keep(&mut client, 1000), ReasonCode::QuotaExceeded);
        client.send(&evermq_mqtt::Packet::Publish(message("news", "still here")));
        assert_eq!(client.message().1, "still here");

        // Somebody makes room: nobody has to touch the broker.
        mount(&["-o", "remount,size=64m", at]);
        program.wait_for("room", || state()["trouble"].is_null() && program.health() == "up");
        assert!(metric(&program, "ready"));
        assert_eq!(keep(&mut client, 1000), ReasonCode::Success);
        let log = program.log();
        assert_eq!(log.matches("to=\"degraded\"").count(), 1, "{log}");
        // All that was acknowledged is there, and nothing else.
        assert_eq!(state()["retained"], kept + 1);
        drop(program);
        mount_away(at);
    });
}

fn mount_away(at: &str) {
    assert!(Command::new("umount").arg(at).status().unwrap().success());
}

/// The first segment's file.
fn first_segment(store: &Path) -> PathBuf {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    files.sort();
    files.into_iter().next().expect("a store has a segment")
}

#[test]
fn damage_is_shown_until_the_next_start() {
    let site = Site::new();
    let config = site.config("broker1", std::net::SocketAddr::from(([127, 0, 0, 1], 0)), &[]);
    let broker = Running::start(&config);
    let mut client = broker.client("c");
    for number in 0..4 {
        assert_eq!(keep(&mut client, number), ReasonCode::Success);
    }
    drop(client);
    broker.stop().unwrap();
    let file = first_segment(&config.broker.store.path);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = 100_000;
    bytes[middle..middle + 16].fill(0xA5);
    std::fs::write(&file, bytes).unwrap();

    let broker = Running::start(&config);
    let state = broker.state();
    let text = state["trouble"].as_str().unwrap();
    assert!(text.contains("were damaged when this broker started") && text.contains("evermq store check"), "{text}");
    assert_eq!((&state["health"], &state["store"]["state"]), (&"degraded".into(), &"ready".into()));
    assert_eq!(state["retained"], 3, "the rest is served");
    assert_eq!(keep(&mut broker.client("c"), 9), ReasonCode::Success);
}
