//! A group of two routers and one alone, fed with messages as they come from the wire: no panic, a group is never master by
//! halves, only a master or one that lingers has its addresses, and bytes that are no advert of ours change nothing.
//!
//! The input is a row of steps: a byte that says what, and what that needs of the bytes behind it.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use evermq_config::Vrid;
use evermq_config::vip::{Checksum, VrrpVersion};
use evermq_vip::fsm::{Action, Settings, State};
use evermq_vip::packet::{self, Identity, Received, TTL};
use evermq_vip::routers::{Plan, Routers};
use evermq_vip::track::{Cause, Effective};
use libfuzzer_sys::fuzz_target;

const INTERVAL: Duration = Duration::from_millis(20);
const ROUTERS: usize = 3;

struct World {
    routers: Routers,
    identity: Identity,
    now: Instant,
    holds: [bool; ROUTERS],
}

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new();
    let mut rest = bytes;
    while let [what, tail @ ..] = rest {
        rest = world.step(*what, tail);
        world.check();
    }
});

impl World {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the virtual clock counts from some instant")]
        let now = Instant::now();
        let settings = Settings {
            address: Ipv4Addr::new(10, 90, 0, 2).into(),
            version: VrrpVersion::V3,
            interval: INTERVAL,
            preempt: true,
            preempt_delay: INTERVAL * 3,
            start_delay: Duration::ZERO,
            garp_repeat_delay: INTERVAL,
            garp_refresh: INTERVAL * 5,
            peers: true,
            permission: false,
        };
        let plan = |group: Option<&str>| Plan { settings, sync_group: group.map(str::to_owned), keeps: None };
        Self {
            routers: Routers::new(&[plan(Some("g")), plan(Some("g")), plan(None)], now),
            identity: Identity {
                vrid: Vrid::new(51).expect("51 is a VRID"),
                version: VrrpVersion::V3,
                addresses: vec![Ipv4Addr::new(10, 90, 0, 100).into()],
                interval: INTERVAL,
                auth_pass: None,
                checksum: Checksum::Rfc,
            },
            now,
            holds: [false; ROUTERS],
        }
    }

    /// Does one step. Gives what is left of the input.
    fn step<'a>(&mut self, what: u8, tail: &'a [u8]) -> &'a [u8] {
        let (index, now) = (usize::from(what >> 4) % ROUTERS, self.now);
        let [first, second, ..] = *tail else { return &[] };
        match what & 0x0f {
            0..=5 => return self.hear(index, tail),
            6 | 7 => {
                let effective = Effective { priority: (first > 0).then_some(first), cause: Cause::LbUp };
                self.routers.handle_effective(index, effective, now);
            }
            8 => self.routers.handle_address_lost(index, now),
            9 => self.routers.handle_conflict(index, now),
            // Nobody wakes the machines.
            10 => self.now += INTERVAL * u32::from(first) / 16,
            _ => {
                let end = now + Duration::from_micros(u64::from(u16::from_be_bytes([first, second])));
                while let Some(due) = self.routers.poll_timeout().filter(|due| *due <= end) {
                    self.now = self.now.max(due);
                    self.routers.handle_timeout(self.now);
                    assert!(self.routers.poll_timeout().is_none_or(|next| next > self.now), "a timer that stays");
                    self.check();
                }
                self.now = end;
            }
        }
        &tail[2..]
    }

    /// A message of twelve bytes. Its checksum is made right, or nothing would get in.
    fn hear<'a>(&mut self, index: usize, tail: &'a [u8]) -> &'a [u8] {
        let Some((message, rest)) = tail.split_first_chunk::<13>() else { return &[] };
        let (last, mut message) = (message[12], *message.first_chunk::<12>().expect("twelve of thirteen"));
        message[6..8].fill(0);
        let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        message[6..8].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        let source = IpAddr::from(Ipv4Addr::new(10, 90, 0, last % 4));
        let destination = packet::GROUP_V4.into();
        let received = Received { source, destination, ttl: TTL, message: &message };
        if let Ok(advert) = packet::decode(&received, &self.identity) {
            self.routers.handle_advert(index, advert, self.now);
        }
        rest
    }

    fn check(&mut self) {
        while let Some((index, action)) = self.routers.poll_action() {
            match action {
                Action::AddAddress => self.holds[index] = true,
                Action::RemoveAddress => {
                    assert!(self.holds[index], "removed twice");
                    self.holds[index] = false;
                }
                Action::SendAdvert { .. } | Action::SendGarp | Action::Moved(_) | Action::Follows { .. } => {}
                Action::SeekPermission | Action::YieldPermission => panic!("no quorum is configured"),
            }
        }
        for (index, holds) in self.holds.iter().enumerate() {
            let master = self.routers.state(index) == State::Master;
            assert_eq!(*holds, master || self.routers.lingers(index));
        }
        assert_eq!(self.routers.state(0) == State::Master, self.routers.state(1) == State::Master, "half a group");
    }
}
