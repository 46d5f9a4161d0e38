//! One holder at a time for each virtual IP, by the votes of most hosts.
//!
//! That a host reaches most others is not enough: two load balancers that are cut off only from each other both do. So hosts
//! **vote**. Every host of the cluster file lends each resource (a virtual router: family and VRID) to one host at a time,
//! for a *lease*; a host holds the VIP only while a majority of all hosts of the file has lent it the resource. Load
//! balancers vote in `evermq-vip`, hosts that are only brokers in `evermq-broker`.
//!
//! | module | subject |
//! |---|---|
//! | [`claimant`] | one host's claim on one resource, pure |
//! | [`voter`] | one host's vote, pure |
//! | [`node`] | both together with what is known of the other hosts: datagrams in, datagrams and verdicts out; pure |
//! | [`message`], [`key`], [`membership`] | messages to and from bytes, the shared key, who votes |
//! | [`member`] | a node on a UDP socket, for a thread with a poll loop |
//! | [`thread`](mod@thread) | a node that only votes, with a thread of its own |
//! | [`state`], [`counts`] | what is shown |
//!
//! # Use
//!
//! ```no_run
//! # fn clock() -> std::time::Instant { unimplemented!() }
//! # fn wait(_: std::os::fd::BorrowedFd<'_>, _: Option<std::time::Instant>) -> bool { unimplemented!() }
//! # fn add_address() {} fn remove_address() {}
//! # fn work(config: &evermq_config::QuorumConfig) -> Result<(), evermq_quorum::QuorumError> {
//! use evermq_quorum::{Action, Member, Resource, Settings};
//!
//! let vip = Resource::new(false, 51); // IPv4, VRID 51
//! let mut member = Member::open(Settings::load(config)?)?;
//! member.register(vip); // no allocation from here on
//! member.want(vip, true, 100, clock()); // the master-down timer has fired, at priority 100
//! loop {
//!     let readable = wait(member.fd(), member.poll_timeout()); // one ppoll with everything else
//!     if readable {
//!         member.handle_readable(); // before the timeouts: it is what came in while this thread did not run
//!     }
//!     let now = clock();
//!     if member.poll_timeout().is_some_and(|due| due <= now) {
//!         member.handle_timeout(now);
//!     }
//!     while let Some(Action { resource: _, granted }) = member.poll_action() {
//!         // Lost: the address goes at once. The claim has ended, `want` starts another.
//!         if granted { add_address() } else { remove_address() }
//!     }
//! }
//! # }
//! ```
//!
//! `want(vip, false, ..)` gives the votes back at once: a successor has them a round trip later (a planned handover).
//! [`Member::holds`] says exactly whether the lease still runs, for a thread that may have been stopped meanwhile.
//!
//! # What is guaranteed
//!
//! **There is never a second holder**, whatever the network loses, delays, repeats, reorders or cuts, and however often hosts
//! fail, restart or stop, as long as
//! - the monotonic clocks of two hosts run apart by less than 2 % (NTP slews by 0.05 % at most, crystals are better than
//!   0.02 %), and do not stand still while the host's programs do;
//! - a program that has to let go does so within what those 2 % leave of a twentieth of the lease: 6 ms at 200 ms. For one
//!   that does not run at that moment, the guard process of `evermq-vip` removes the address;
//! - hosts have the same file, but for one host added or removed; finish one such change on all hosts before the next. Votes
//!   between files that differ by more do not count. A lease that is made shorter is not rolled out by restarts that come
//!   sooner than the longer one;
//! - nobody else has the key.
//!
//! Why: a grant counts for the holder from when it *sent* the request, and only 19/20 of the lease; the voter counts from
//! when it *received* it. So a holder without a majority has let go before the first vote of that majority is free, and two
//! majorities share a voter. A voter that was started less than a lease ago grants nothing, for it has forgotten what it
//! granted. A yield is the last word of a claim: messages that it overtook do not count.
//!
//! **What it is not**: VRRP still decides *who of those who can* takes over. Without a majority nobody holds the VIP,
//! though a host may be fine: that is the price. Where the address is left behind by a program that was killed, its removal is
//! the guard's, systemd's or the restarted program's.
//!
//! # Timing
//!
//! With a lease L and a round trip R (in a LAN far below a millisecond):
//!
//! | event | how long |
//! |---|---|
//! | a holder that is cut off lets go | L after the last request that a majority answered: at most L after the cut |
//! | the holder fell silent; another claims | L + L/20 + R after its last request: the lease runs from there, not from when VRRP noticed |
//! | the holder yields (stop, priority 0) | R, or L/20 + R where that message was lost |
//! | two claim at the same time and split the votes | one of them has it within another L as a rule, see below |
//! | a voter has restarted | it votes again after L |
//! | the whole cluster has started | L + R |
//!
//! A holder asks each voter again after L/5, and after L/20 while no answer comes, so about 16 times in the rest of the lease:
//! with 30 % loss in each direction half of the round trips fail, and one lease in 60,000 runs out by it.
//!
//! Claims that split the votes: a claim that too many refuse, or that has no majority after L/2, gives back what it got.
//! It waits until enough of the leases in its way run out; with a part of the votes, by L/4 longer the lower its rank, and
//! from the second time on by up to L/2 more, differently on each host. The holder is never disturbed: voters keep to whom
//! they lent.
//!
//! # How many hosts
//!
//! | hosts | majority | fails while the VIP stays |
//! |---|---|---|
//! | 1 | 1 | none; the host is alone and always wins |
//! | 2 | 2 | none: either host's failure takes the VIP away. Use `quorum_gateway`, or a third host |
//! | 3 | 2 | any 1 |
//! | 4 | 3 | any 1 |
//! | 5 | 3 | any 2 |
//!
//! Two load balancers and two brokers bear one failure of four, of any kind; a third broker makes that two. Two load
//! balancers cut off from each other only: both reach the brokers, the holder keeps their votes, the other is refused until
//! it ends.
//!
//! A changed file is given to [`Member::handle_settings`]: what is held stays held, and where one host was added or removed,
//! the former majority counts until its leases run out, so that the new votes have time to come.
//!
//! # With a gateway
//!
//! `quorum_gateway` adds a second way to hold, for two hosts: where there is no majority, a host may hold while
//! 1. the gateway answers its pings within the lease,
//! 2. its own vote is granted to it (so that a holder that was heard before has let go), and
//! 3. no host that can be reached says that another holds; whoever is to take over needs the vote of all that answer, and
//!    counts the others as gone when they have been silent for half a lease.
//!
//! It guarantees that two hosts both hold only while **no** voter is reached by both, and that a host which is cut off from
//! everything gives up within a lease. It does not guarantee one holder: two hosts that both reach the gateway and not each
//! other, with no third host between them, both hold. Nobody can tell that from a dead peer by what they see. When they
//! meet again each refuses the other; both let go, and the higher rank has the VIP within about half a lease. Pings are not
//! authenticated: who can answer for the gateway can keep a cut-off host holding. With three hosts or more leave it out.
//!
//! # Who could disturb
//!
//! - Every message has an HMAC-SHA-256 of all that it says, of cluster, sender and receiver, with a key that all hosts share. What
//!   is not authentic is dropped and counted by cause, at most 64 datagrams in one turn. Another cluster on the same network
//!   differs by its name, and by its key if it has one of its own.
//! - A message recorded and sent again changes nothing: see `peer.rs`. Each names the run (epoch) of its receiver and counts
//!   up within its sender's; an answer gives back the claim's number and the asker's clock.
//! - A run is numbered by the wall clock. Where that went back between two starts, the others answer which number they know,
//!   and the host goes on above it. Time is measured by the monotonic clock alone.
//! - A host whose memory is set back to an earlier snapshot breaks the rule that a voter remembers. Restart its programs.
//!
//! # Cost
//!
//! 136 bytes a message. Idle: each host asks each other once a second. A claim asks each other host five times a lease:
//! 25 requests a second and host at 200 ms.

pub mod claimant;
pub mod counts;
mod gateway;
pub mod key;
mod link;
pub mod member;
pub mod membership;
pub mod message;
pub mod node;
mod peer;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod thread;
pub mod voter;

pub use key::Key;
pub use member::{Member, QuorumError};
pub use membership::{MembershipError, Settings};
pub use message::Resource;
pub use node::Action;
pub use state::State;
pub use thread::{StateWatch, VoterThread, voter_thread};
