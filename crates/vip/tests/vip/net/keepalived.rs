//! keepalived in the place of one of the two, and what must be so beside it, whatever version, family and adverts they speak.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::watch::stays;
use super::{CALM, Host, INTERVAL, Net, Options, VIP, VIP6, wait_for};

/// Microseconds that keepalived may compute without a system call that waits: it never does for so long.
const RLIMIT_RTTIME: u32 = 5_000_000;

/// How both routers speak.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) ours: Options,
    pub(crate) theirs: Settings,
}

/// Of a `vrrp_instance`, beyond what follows from the test.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) version: u8,
    /// Seconds.
    pub(crate) advert_int: &'static str,
    pub(crate) priority: u8,
    pub(crate) addresses: Vec<IpAddr>,
    /// Further lines.
    pub(crate) more: &'static str,
}

impl Link {
    /// VRRP 3, 200 ms.
    pub(crate) fn v3(name: &'static str, vip: IpAddr, adverts: &'static str) -> Self {
        // By unicast over IPv6 keepalived leaves the hop limit to the kernel, which takes 64.
        let more = if vip.is_ipv6() { "unicast_ttl 255" } else { "" };
        Self {
            name,
            ours: Options { adverts, vip, ..Options::default() },
            theirs: Settings { version: 3, advert_int: "0.2", priority: 150, addresses: vec![vip], more },
        }
    }

    pub(crate) fn v3_of_ipv4() -> [Self; 2] {
        [Self::v3("multicast", VIP.into(), "multicast"), Self::v3("unicast", VIP.into(), "unicast")]
    }

    pub(crate) fn v3_of_ipv6() -> [Self; 2] {
        [Self::v3("IPv6 multicast", VIP6.into(), "multicast"), Self::v3("IPv6 unicast", VIP6.into(), "unicast")]
    }

    /// VRRP 2, 1 s; the last one with a password.
    pub(crate) fn v2() -> [Self; 3] {
        let link = |name, adverts, ours, theirs| Self {
            name,
            ours: Options { adverts, interval: "1s", more: ours, ..Options::default() },
            theirs: Settings { version: 2, advert_int: "1", priority: 150, addresses: vec![VIP.into()], more: theirs },
        };
        [
            link("VRRP 2 multicast", "multicast", "version = 2", ""),
            link("VRRP 2 unicast", "unicast", "version = 2", ""),
            link(
                "VRRP 2 with a password",
                "multicast",
                "version = 2\nauth_pass = \"sesame\"",
                "authentication {\n    auth_type PASS\n    auth_pass sesame\n  }",
            ),
        ]
    }

    #[must_use]
    pub(crate) fn with_priority(mut self, priority: u8) -> Self {
        self.theirs.priority = priority;
        self
    }

    #[must_use]
    pub(crate) fn preempting(mut self) -> Self {
        self.ours.preempt = true;
        self
    }

    /// As [`CALM`].
    pub(crate) fn calm(&self) -> Duration {
        self.pace(CALM, Duration::from_secs(5))
    }

    /// A takeover by silence, on a machine that may be busy.
    pub(crate) fn silence(&self) -> Duration {
        self.pace(Duration::from_secs(4), Duration::from_secs(8))
    }

    fn pace(&self, v3: Duration, v2: Duration) -> Duration {
        if self.theirs.version == 2 { v2 } else { v3 }
    }
}

impl Host {
    /// This host's address in the family of the VIP.
    pub(crate) fn address_beside(&self, vip: IpAddr) -> IpAddr {
        if vip.is_ipv6() { self.address6.into() } else { self.address.into() }
    }

    /// Starts keepalived, which speaks to `peer` where the adverts are unicast.
    pub(crate) fn start_keepalived(&mut self, link: &Link, peer: &Host) {
        let Settings { version, advert_int, priority, addresses, more } = &link.theirs;
        let lines = |separator: &str, texts: Vec<String>| texts.join(separator);
        let unicast = if link.ours.adverts == "unicast" {
            let [own, other] = [&*self, peer].map(|host| host.address_beside(link.ours.vip));
            format!("unicast_src_ip {own}\n  unicast_peer {{\n    {other}\n  }}")
        } else {
            String::new()
        };
        let prefix = if link.ours.vip.is_ipv6() { 128 } else { 32 };
        let virtual_addresses = addresses.iter().map(|address| format!("{address}/{prefix} dev eth0")).collect();
        let config = self.directory.join("keepalived.conf");
        // In real time as we are: on a busy machine it would take its own lateness for our silence. It lets the kernel kill it
        // after 10 ms of computing at a stretch (RLIMIT_RTTIME) unless told otherwise, and a slow machine needs more to start.
        let text = format!(
            "global_defs {{\n  vrrp_rt_priority 20\n  vrrp_rlimit_rttime {RLIMIT_RTTIME}\n}}\nvrrp_instance VIP {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  version {version}\n  \
             priority {priority}\n  advert_int {advert_int}\n  {unicast}\n  {more}\n  \
             virtual_ipaddress {{\n    {}\n  }}\n}}\n",
            lines("\n    ", virtual_addresses)
        );
        fs::write(&config, text).unwrap();
        let mut command = self.command("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]).arg(config);
        command.arg("--pid").arg(self.directory.join("keepalived.pid"));
        command.arg("--vrrp_pid").arg(self.directory.join("keepalived-vrrp.pid"));
        self.spawn(command);
        wait_for("keepalived to start", || self.log().contains("Entering BACKUP STATE").then_some(()));
    }

    /// The address of the master that this host's `evermq-vip` hears, as its state shows it.
    fn hears(&self) -> String {
        self.state()["master"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until it hears `other` as the master.
    pub(crate) fn wait_to_hear(&self, other: &Host, vip: IpAddr) {
        let heard = || -> Option<()> {
            let master = self.hears();
            // Multicast over IPv6 comes from the link-local address.
            let own = [other.address_beside(vip).to_string(), format!("fe80::{}", other.address.octets()[3])];
            own.contains(&master).then_some(())
        };
        wait_for(&format!("{} to hear {}", self.name, other.name), heard);
    }
}

/// `ours` runs evermq-vip, `theirs` will run keepalived.
pub(crate) fn beside(link: &Link, body: impl FnOnce(&mut Host, &mut Host)) {
    assert!(
        Command::new("keepalived").arg("--version").output().is_ok(),
        "this test needs keepalived (apt install keepalived)"
    );
    let mut net = Net::new(link.ours.clone());
    let [lb1, lb2, _] = net.hosts();
    lb1.lb.up();
    body(lb1, lb2);
}

/// We hold the VIP at priority 200; keepalived, of 150, stays backup, takes over at once when we leave, and keeps it when we come
/// back, for we do not preempt. When it leaves, we take over at once.
pub(crate) fn lower_priority_waits_and_both_hand_over(link: &Link) {
    beside(link, |lb1, lb2| {
        lb1.start();
        lb1.vip.wait(true);
        lb2.start_keepalived(link, lb1);
        stays("keepalived hears our adverts", link.calm(), || lb1.vip.held() && !lb2.vip.held());
        lb1.signal(Signal::SIGTERM);
        lb2.vip.wait(true);
        lb2.logged(&["Backup received priority 0 advertisement"]);
        assert!(lb1.ended().success());
        lb1.vip.wait(false);
        lb1.start();
        lb1.wait_for_state("backup");
        lb1.wait_to_hear(lb2, link.ours.vip);
        stays("we hear keepalived's adverts", link.calm(), || lb2.vip.held() && !lb1.vip.held());
        lb2.signal(Signal::SIGTERM);
        lb1.vip.wait(true);
        it_left(lb1, lb2, link);
        lb2.vip.wait(false);
        nothing_was_discarded(lb1);
        lb2.ended();
    });
}

/// keepalived of higher priority takes the VIP from us, and hands it over.
pub(crate) fn higher_priority_preempts_and_hands_over(link: Link) {
    let link = link.with_priority(250);
    beside(&link, |lb1, lb2| {
        lb1.start();
        lb1.vip.wait(true);
        lb2.start_keepalived(&link, lb1);
        lb2.vip.wait(true);
        lb1.vip.wait(false);
        lb1.wait_for_state("backup");
        lb1.wait_to_hear(lb2, link.ours.vip);
        let changes = (lb1.vip.changes(), lb2.vip.changes());
        stays("keepalived is master", link.calm(), || lb2.vip.held() && !lb1.vip.held());
        assert_eq!((lb1.vip.changes(), lb2.vip.changes()), changes, "nothing flaps");
        lb2.signal(Signal::SIGTERM);
        lb1.vip.wait(true);
        it_left(lb1, lb2, &link);
        lb2.vip.wait(false);
        nothing_was_discarded(lb1);
        lb2.ended();
    });
}

/// We, of higher priority and told to preempt, take the VIP from keepalived, which gives it up.
pub(crate) fn we_preempt(link: Link) {
    let link = link.preempting();
    beside(&link, |lb1, lb2| {
        lb2.start_keepalived(&link, lb1);
        lb2.vip.wait(true);
        lb1.start();
        lb1.vip.wait(true);
        lb2.vip.wait(false);
        let changes = (lb1.vip.changes(), lb2.vip.changes());
        stays("we are master", link.calm(), || lb1.vip.held() && !lb2.vip.held());
        assert_eq!((lb1.vip.changes(), lb2.vip.changes()), changes, "nothing flaps");
        lb2.signal(Signal::SIGTERM);
        lb2.ended();
    });
}

/// keepalived that is told not to preempt leaves the VIP to us though its priority is higher.
pub(crate) fn it_does_not_preempt_where_it_is_told_so(link: Link) {
    let mut link = link.with_priority(250);
    let more = format!("{}\n  nopreempt", link.theirs.more);
    link.theirs.more = more.leak();
    beside(&link, |lb1, lb2| {
        lb1.start();
        lb1.vip.wait(true);
        lb2.start_keepalived(&link, lb1);
        stays("keepalived leaves it to us", link.calm(), || lb1.vip.held() && !lb2.vip.held());
        lb2.signal(Signal::SIGTERM);
        lb2.ended();
    });
}

/// Two masters of one priority, who have not heard each other, settle on the higher address: keepalived's on lb2, ours where we run
/// there.
pub(crate) fn equal_priorities_are_decided_by_the_address(link: &Link) {
    for we_win in [false, true] {
        let mut net = Net::new(link.ours.clone());
        let [lb1, lb2, _] = net.hosts();
        // Our priority by the file's order is 200 on lb1 and 190 on lb2.
        let (ours, theirs, priority) = if we_win { (lb2, lb1, 190) } else { (lb1, lb2, 200) };
        let link = link.clone().with_priority(priority);
        ours.lb.up();
        ours.start();
        ours.vip.wait(true);
        ours.cut(true);
        theirs.start_keepalived(&link, ours);
        theirs.vip.wait(true);
        ours.cut(false);
        let (winner, loser) = if we_win { (&*ours, &*theirs) } else { (&*theirs, &*ours) };
        loser.vip.wait(false);
        winner.vip.wait(true);
        stays("the higher address is master", link.calm(), || winner.vip.held() && !loser.vip.held());
        theirs.signal(Signal::SIGTERM);
        theirs.ended();
    }
}

/// keepalived is not heard: we take over after three of its intervals and our skew, and give way when it is heard again.
pub(crate) fn its_silence_is_noticed(link: Link) {
    let link = link.with_priority(250);
    beside(&link, |lb1, lb2| {
        lb2.start_keepalived(&link, lb1);
        lb2.vip.wait(true);
        lb1.start();
        lb1.wait_to_hear(lb2, link.ours.vip);
        let fault = Instant::now();
        lb2.cut(true);
        let after = lb1.vip.wait(true) - fault;
        let interval = link.pace(INTERVAL, Duration::from_secs(1));
        // The last advert came up to one interval before the fault.
        assert!(after > interval * 2 && after < link.silence(), "{}: {after:?}", link.name);
        assert!(lb2.vip.held());
        lb2.cut(false);
        lb1.vip.wait(false);
        stays("the higher priority is master", link.calm(), || lb2.vip.held() && !lb1.vip.held());
        lb2.signal(Signal::SIGTERM);
        lb2.ended();
    });
}

/// We took over by keepalived's priority 0, after a skew, and not by its silence, after three intervals more.
pub(crate) fn it_left(ours: &Host, theirs: &Host, link: &Link) {
    let heard_as = if link.ours.vip.is_ipv6() && link.ours.adverts == "multicast" {
        format!("fe80::{}", theirs.address.octets()[3])
    } else {
        theirs.address_beside(link.ours.vip).to_string()
    };
    let words = format!("master {heard_as} left");
    assert_eq!(ours.logged(&["VRRP state", "to=master", &words]), 1, "{}", link.name);
}

/// Not one advertisement that came was thought wrong.
pub(crate) fn nothing_was_discarded(host: &Host) {
    let counters = host.state()["counters"].clone();
    let wrong: Vec<_> = counters
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, count)| (name.ends_with("_errors") || name.starts_with("invalid_")) && **count != 0)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(counters["advertisement_rcvd"].as_u64() > Some(0), "{counters}");
}
