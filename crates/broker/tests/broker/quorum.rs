//! A broker's host votes on who holds the VIP.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use evermq_broker::Driver;
use evermq_config::{ClusterName, HostName, QuorumConfig, Voter};
use evermq_quorum::{Member, Resource, Settings};

use crate::running::{PATIENCE, Running, Site};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The quorum of a load balancer and this broker, with a key.
fn quorum(site: &Site) -> (QuorumConfig, UdpSocket) {
    let lb = UdpSocket::bind(LOCAL).unwrap();
    let broker = evermq_ports::free_address();
    let key_file = site.directory.path().join("heartbeat.key");
    std::fs::write(&key_file, "7a".repeat(32)).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let host = |name| HostName::new(name).unwrap();
    let voters = vec![
        Voter { name: host("lb1"), address: lb.local_addr().unwrap() },
        Voter { name: host("broker1"), address: broker },
    ];
    let cluster = ClusterName::new("test").unwrap();
    let lease = Duration::from_millis(500);
    (QuorumConfig { cluster, host: host("broker1"), voters, lease, gateway: None, key_file }, lb)
}

#[test]
fn a_load_balancer_gets_the_brokers_vote_and_the_state_shows_it() {
    let site = Site::new();
    let (quorum, socket) = quorum(&site);
    let mut config = site.config("broker1", LOCAL, &[]);
    config.quorum = Some(quorum.clone());
    let broker = Running::start(&config);

    let lb1 = QuorumConfig { host: HostName::new("lb1").unwrap(), ..quorum };
    let lb1 = Member::adopt(Settings::load(&lb1).unwrap(), socket).unwrap();
    let vip = Resource::new(false, 51);
    let driver = std::thread::spawn(move || hold(lb1, vip));
    broker.wait_for("its vote for lb1", |state| {
        let quorum = &state["quorum"];
        quorum["granted"][0]["holder"] == "lb1" && quorum["granted"][0]["vrid"] == 51 && quorum["reachable"] == 2
    });
    assert!(driver.join().unwrap(), "two of two votes are a majority");
}

#[expect(clippy::disallowed_methods, reason = "real sockets live in real time")]
fn now() -> Instant {
    Instant::now()
}

/// Wants the VIP until it has it, and then keeps it for two leases.
fn hold(mut member: Member, vip: Resource) -> bool {
    let begin = now();
    member.want(vip, true, 100, begin);
    let mut granted = None;
    while now() < begin + PATIENCE {
        let mut fds = [nix::poll::PollFd::new(member.fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(5u8)).unwrap();
        member.handle_readable();
        member.handle_timeout(now());
        while let Some(action) = member.poll_action() {
            granted = action.granted.then(now);
        }
        if granted.is_some_and(|granted| now() > granted + Duration::from_secs(1)) {
            return true;
        }
    }
    false
}

#[test]
fn a_broker_without_its_key_does_not_start() {
    let site = Site::new();
    let (quorum, _socket) = quorum(&site);
    std::fs::remove_file(&quorum.key_file).unwrap();
    let mut config = site.config("broker1", LOCAL, &[]);
    config.quorum = Some(quorum);
    let error = Driver::start(&config).err().unwrap().to_string();
    assert!(error.contains("evermq certs heartbeat-key"), "{error}");
}
