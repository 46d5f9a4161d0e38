//! Members on real sockets, on loopback, and a stranger among them.

#![expect(clippy::disallowed_methods, reason = "real sockets live in real time")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use evermq_config::{ClusterName, HostName, QuorumConfig, Voter};
use evermq_quorum::message::LENGTH;
use evermq_quorum::{Action, Key, Member, QuorumError, Resource, Settings, State, VoterThread, voter_thread};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Long enough for a machine that is busy with other things.
const LEASE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);
const VIP: Resource = Resource::new(false, 51);

fn name(index: usize) -> HostName {
    HostName::new(&format!("h{index}")).unwrap()
}

fn settings(own: usize, addresses: &[SocketAddr], key: u8) -> Settings {
    let hosts = addresses.iter().enumerate().map(|(index, address)| (name(index), *address));
    let key = Key::new(&[key; 32]).unwrap();
    Settings::new(&ClusterName::new("one").unwrap(), &name(own), hosts, LEASE, None, key).unwrap()
}

/// Members on sockets of their own, each bound before anyone is told its port.
fn members(count: usize) -> (Vec<Member>, Vec<SocketAddr>) {
    let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let members = sockets.into_iter().enumerate();
    (members.map(|(own, socket)| Member::adopt(settings(own, &addresses, 1), socket).unwrap()).collect(), addresses)
}

/// Drives `member` as a program does until `over`, which sees each action.
fn drive(member: &mut Member, mut over: impl FnMut(&mut Member, Option<Action>) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !over(member, None) {
        assert!(Instant::now() < deadline, "it does not happen");
        let mut fds = [PollFd::new(member.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(5u8)).unwrap();
        member.handle_readable();
        let now = Instant::now();
        if member.poll_timeout().is_some_and(|due| due <= now) {
            member.handle_timeout(now);
        }
        while let Some(action) = member.poll_action() {
            if over(member, Some(action)) {
                return;
            }
        }
    }
}

/// The next datagram.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> usize {
    loop {
        match socket.recv(bytes) {
            // A socket with a timeout says so where the process stood still (signal(7)).
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome.unwrap(),
        }
    }
}

fn until_granted(member: &mut Member) {
    member.want(VIP, true, 100, Instant::now());
    drive(member, |_, action| action == Some(Action { resource: VIP, granted: true }));
}

fn state(member: &Member) -> State {
    let mut state = State::default();
    member.update_state(&mut state, Instant::now());
    state
}

#[test]
fn a_majority_on_sockets_grants_and_a_handover_takes_no_lease() {
    let (members, _) = members(3);
    let [mut one, mut two, three]: [Member; 3] = members.try_into().unwrap();
    let voter = VoterThread::start(three).unwrap();

    until_granted(&mut one);
    assert!(one.holds(VIP, Instant::now()));
    let shown = state(&one);
    assert_eq!((shown.hosts.len(), shown.majority), (3, 2));
    assert!(shown.claims[0].held && shown.claims[0].granted >= 2, "{:?}", shown.claims);
    let deadline = Instant::now() + PATIENCE;
    while voter.state().leases.first().and_then(|lease| lease.holder) != Some(0) {
        assert!(Instant::now() < deadline, "{:?}", voter.state());
        drive(&mut one, |_, _| true);
        poll(&mut [], PollTimeout::from(5u8)).unwrap();
        one.handle_timeout(Instant::now());
    }

    // Planned: what is yielded is free as soon as it is heard.
    one.want(VIP, false, 0, Instant::now());
    assert!(!one.holds(VIP, Instant::now()));
    until_granted(&mut two);
    let json = serde_json::to_value(state(&two)).unwrap();
    assert_eq!(json["claims"][0]["stage"], "holding");
    assert_eq!(json["claims"][0]["vrid"], 51);
    assert_eq!(json["hosts"][1]["own"], true);
    assert_eq!(json["lease_ms"], 1000);
    voter.stop();
}

#[test]
fn a_member_that_hears_nobody_loses_what_it_holds() {
    let (members, _) = members(2);
    let [mut one, two]: [Member; 2] = members.try_into().unwrap();
    let voter = VoterThread::start(two).unwrap();
    until_granted(&mut one);
    voter.stop();
    let silent = Instant::now();
    drive(&mut one, |_, action| action == Some(Action { resource: VIP, granted: false }));
    assert!(!one.holds(VIP, Instant::now()));
    assert!(silent.elapsed() >= LEASE / 2, "the votes still counted");
    drive(&mut one, |one, _| state(one).reachable() == 1);
}

/// Garbage, another key, another cluster, and everything that was ever sent, again and again.
#[test]
fn a_stranger_changes_nothing() {
    let (members, addresses) = members(2);
    let [mut one, two]: [Member; 2] = members.try_into().unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();

    // One who knows all but the key, and one who has the key of another cluster.
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let forged = {
        let to = [addresses[0], listener.local_addr().unwrap()];
        let mut forger = Member::adopt(settings(0, &to, 2), UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        forger.want(VIP, true, 255, Instant::now());
        let mut bytes = [0; LENGTH];
        assert_eq!(receive(&listener, &mut bytes), LENGTH);
        bytes
    };
    let other_cluster = {
        let mut bytes = forged;
        bytes[8] ^= 1;
        bytes
    };

    // What the voter was sent by the real one goes to the stranger first.
    let tap = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut recorded = Vec::new();
    {
        let to = [addresses[0], tap.local_addr().unwrap()];
        let mut talker = Member::adopt(settings(0, &to, 1), UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        talker.want(VIP, true, 100, Instant::now());
        talker.want(VIP, false, 0, Instant::now());
        tap.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..2 {
            let mut bytes = [0; LENGTH];
            receive(&tap, &mut bytes);
            recorded.push(bytes);
        }
    }

    let voter = VoterThread::start(two).unwrap();
    let abuse = || {
        let short: &[u8] = b"hello";
        for bytes in [short, &[0; 500], &forged, &other_cluster, &recorded[0], &recorded[1]] {
            for address in &addresses {
                stranger.send_to(bytes, address).unwrap();
            }
        }
    };
    abuse();
    one.want(VIP, true, 100, Instant::now());
    drive(&mut one, |_, action| {
        abuse();
        action == Some(Action { resource: VIP, granted: true })
    });
    let begin = Instant::now();
    drive(&mut one, |_, action| {
        assert_eq!(action, None, "the holder is disturbed");
        abuse();
        begin.elapsed() > LEASE * 2
    });
    let deadline = Instant::now() + PATIENCE;
    let counts = loop {
        let counts = voter.state().counts;
        if counts.length_errors > 0 && counts.tag_errors > 0 && counts.cluster_errors > 0 {
            break counts;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        poll(&mut [], PollTimeout::from(5u8)).unwrap();
    };
    assert_eq!(counts.malformed_errors, 0);
    assert_eq!(voter.state().leases.len(), 1, "nothing was freed or lent by what was recorded");
    let own = state(&one).counts;
    assert!(own.length_errors > 0 && own.receiver_errors > 0, "{own:?}");
}

#[test]
fn a_voter_starts_from_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("heartbeat.key");
    let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = QuorumConfig {
        cluster: ClusterName::new("one").unwrap(),
        host: name(0),
        voters: vec![Voter { name: name(0), address: "127.0.0.1:0".parse().unwrap() }],
        lease: LEASE,
        gateway: Some([127, 0, 0, 1].into()),
        key_file: key_file.clone(),
    };
    assert!(matches!(voter_thread(&config), Err(QuorumError::Key(_))), "there is no key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key_file).unwrap();
    file.write_all("0f".repeat(32).as_bytes()).unwrap();
    let voter = voter_thread(&config).unwrap();
    assert_eq!(voter.state().hosts[0].name, name(0));
    voter.stop();

    config.host = name(1);
    assert!(matches!(voter_thread(&config), Err(QuorumError::Membership(_))));
    config.host = name(0);
    config.voters[0].address = probe.local_addr().unwrap();
    let error = voter_thread(&config).unwrap_err();
    assert!(matches!(error, QuorumError::Bind { .. }));
    assert!(error.to_string().contains("vip.heartbeat_port"), "{error}");
}

#[test]
fn settings_change_without_losing_what_is_held() {
    let (members, addresses) = members(3);
    let [mut one, two, three]: [Member; 3] = members.try_into().unwrap();
    let voters = [two, three].map(|member| VoterThread::start(member).unwrap());
    until_granted(&mut one);
    let fourth = [&addresses[..], &["127.0.0.1:9".parse().unwrap()]].concat();
    one.handle_settings(settings(0, &fourth, 1), Instant::now()).unwrap();
    // Of four hosts three are needed; the other two still have the file with three.
    let begin = Instant::now();
    drive(&mut one, |_, action| {
        assert_eq!(action, None);
        begin.elapsed() > LEASE * 2
    });
    assert_eq!(state(&one).majority, 3);
    assert!(one.handle_settings(settings(1, &fourth, 1), Instant::now()).is_err(), "another host");
    voters.into_iter().for_each(VoterThread::stop);
}
