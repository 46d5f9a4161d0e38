//! Hosts that die and are cut off, and their programs.

use std::io::Read as _;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, eventually};

/// A client that is connected to a server in `broker1`, and what it hears when that server is gone.
fn hears(lab: &Lab, port: u16, end: impl FnOnce(&mut Child)) -> String {
    let listen = format!(
        "$|=1; my $s = IO::Socket::INET->new(Listen=>1, LocalPort=>{port}, ReuseAddr=>1) or die; print \"listens\\n\"; \
         my $c = $s->accept; sleep 1000"
    );
    let connect = format!(
        "$|=1; my $s = IO::Socket::INET->new('broker1:{port}') or die; print \"connected\\n\"; \
         $SIG{{ALRM}} = sub {{ print \"nothing\\n\"; exit }}; alarm 2; \
         my $n = sysread $s, my $b, 1; print defined $n ? \"end\\n\" : \"reset\\n\""
    );
    let line = |child: &mut Child| {
        let mut line = String::new();
        let mut byte = [0];
        while !line.ends_with('\n') && child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 {
            line.push(byte[0].into());
        }
        line.trim().to_owned()
    };
    let mut server = lab.perl("broker1", &listen);
    assert_eq!(line(&mut server), "listens");
    let mut client = lab.perl("client", &connect);
    assert_eq!(line(&mut client), "connected");
    end(&mut server);
    let heard = line(&mut client);
    client.wait().unwrap();
    let _ = server.kill();
    server.wait().unwrap();
    heard
}

#[test]
fn a_killed_host_says_no_goodbye() {
    let lab = Lab::up();
    // Otherwise the next lines would prove nothing.
    let heard =
        hears(&lab, 7001, |server| kill(Pid::from_raw(server.id().try_into().unwrap()), Signal::SIGKILL).unwrap());
    assert_eq!(heard, "end");
    assert_eq!(hears(&lab, 7002, |_| drop(lab.ok(&["kill", "broker1"]))), "nothing");
    lab.ok(&["heal", "broker1"]);
    assert_eq!(hears(&lab, 7003, |_| drop(lab.ok(&["cable", "broker1", "off"]))), "nothing");
    assert_eq!(lab.host("broker1")["connected"], false);
    lab.ok(&["cable", "broker1", "on"]);
    assert_eq!(lab.host("broker1")["connected"], true);
}

/// Whether a TCP connection from one host to another is refused at once, which says that packets pass both ways.
fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let script = format!(
        "IO::Socket::INET->new(PeerAddr => '{to}', PeerPort => 9, Timeout => 1); print $!{{ECONNREFUSED}} ? 'yes' : 'no'"
    );
    lab.ok(&["exec", from, "--", "perl", "-MIO::Socket::INET", "-MErrno", "-e", &script]) == "yes"
}

#[test]
fn hosts_that_are_cut_off_reach_everyone_but_each_other_until_one_is_healed() {
    let lab = Lab::up();
    assert!(reaches(&lab, "lb1", "lb2"));
    lab.ok(&["cut", "lb1", "lb2"]);
    assert!(!reaches(&lab, "lb1", "lb2") && !reaches(&lab, "lb2", "lb1"));
    assert!(reaches(&lab, "lb1", "broker1") && reaches(&lab, "broker1", "lb2") && reaches(&lab, "client", "lb1"));
    assert_eq!((&lab.host("lb1")["cut"], &lab.host("broker1")["cut"]), (&true.into(), &false.into()));
    assert!(lab.ok(&["status"]).contains("in, cut"));
    assert!(lab.fails(&["cut", "lb1", "broker1"], 1).contains("lb1 is cut off already; `lab heal lb1` ends that"));
    lab.ok(&["heal", "lb2"]);
    assert!(reaches(&lab, "lb1", "lb2") && reaches(&lab, "lb2", "lb1"));
    assert_eq!(lab.host("lb1")["cut"], false);

    // A host that dies while it is cut off comes back with a whole cable.
    lab.ok(&["cut", "lb1", "lb2", "broker1"]);
    lab.ok(&["kill", "lb1"]);
    assert!(!reaches(&lab, "lb2", "broker1"));
    lab.ok(&["heal", "lb1"]);
    assert!(reaches(&lab, "lb1", "lb2") && reaches(&lab, "lb1", "broker1") && !reaches(&lab, "lb2", "broker1"));
    lab.ok(&["heal", "broker1"]);
    assert!(reaches(&lab, "lb2", "broker1"));
    lab.ok(&["kill", "broker2"]);
    assert!(lab.fails(&["cut", "lb1", "broker2"], 1).contains("broker2 is dead"));
    lab.fails(&["cut", "lb1"], 2);
}

#[test]
fn programs_are_started_stopped_killed_frozen_and_logged() {
    let lab = Lab::up();
    let program = |index: usize| lab.host("lb2")["programs"][index].clone();
    assert_eq!((&program(0)["name"], &program(1)["name"]), (&"evermq-lb".into(), &"evermq-vip".into()));
    let pid = program(0)["pid"].as_i64().unwrap();

    lab.ok(&["kill-program", "lb2", "evermq-lb", "--signal", "STOP"]);
    let stat = format!("/proc/{pid}/stat");
    eventually("it is stopped", || lab.ok(&["exec", "lb2", "--", "cat", &stat]).contains(") T "));
    lab.ok(&["kill-program", "lb2", "evermq-lb"]);
    eventually("it is dead", || program(0)["pid"].is_null());
    assert_eq!(program(0)["ended"], "killed by SIGKILL");
    assert!(lab.fails(&["kill-program", "lb2", "evermq-lb"], 1).contains("does not run"));
    lab.ok(&["start", "lb2", "evermq-lb"]);
    assert_eq!(program(0)["starts"], 2);

    lab.ok(&["stop", "lb2", "vip"]);
    assert!(program(1)["pid"].is_null());
    lab.ok(&["heal", "lb2"]);
    assert_eq!(program(1)["starts"], 2);
    assert!(lab.fails(&["start", "lb2", "evermq-broker"], 1).contains("its programs: evermq-lb, evermq-vip"));

    eventually("both starts are logged", || {
        lab.ok(&["logs", "lb2", "evermq-lb"]).lines().filter(|line| *line == "started").count() == 2
    });
    assert_eq!(lab.ok(&["logs", "lb2", "evermq-lb", "-n", "1"]), "started\n");
    assert!(lab.ok(&["logs", "lb2"]).contains("==> lb2 evermq-vip"));
}

#[test]
fn a_program_that_ends_is_started_again_only_where_that_is_asked_for() {
    let lab = Lab::new();
    lab.ok(&["up", "--no-wait", "--restart"]);
    lab.ok(&["kill-program", "broker1", "evermq-broker"]);
    eventually("it runs again", || {
        let program = &lab.host("broker1")["programs"][0];
        program["starts"] == 2 && program["pid"].is_i64()
    });
    lab.ok(&["stop", "broker1", "evermq-broker"]);
    assert!(lab.host("broker1")["programs"][0]["pid"].is_null());
}
