//! Messages to and from bytes: fixed size, authenticated. Pure, allocates nothing.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------------------------------+
//! |                         magic "EMQH"                          |   0
//! +---------------+---------------+-------------------------------+
//! |    version    |     kind      |           resource            |   4
//! +---------------+---------------+-------------------------------+
//! |  cluster (64)                                                 |   8
//! |  sender (64)                                                  |  16
//! |  receiver (64)                                                |  24
//! |  sender's epoch (64)                                          |  32
//! |  sender's counter (64)                                        |  40
//! |  receiver's epoch, 0 if unknown (64)                          |  48
//! |  sender's membership: digest (64)                             |  56
//! +---------------+---------------+---------------+---------------+
//! |  members      |     rank      |    refusal    |       0       |  64
//! +---------------+---------------+---------------+---------------+
//! |  claim                                                        |  68
//! |  span in microseconds                                         |  72
//! |  0                                                            |  76
//! +---------------------------------------------------------------+
//! |  echo: the counter of the message that is answered (64)       |  80
//! |  stamp: the asker's clock, given back by the answer (64)      |  88
//! |  detail: the holder, or an epoch (64)                         |  96
//! +---------------------------------------------------------------+
//! |  tag: HMAC-SHA-256 of all of the above (256)                  | 104
//! +---------------------------------------------------------------+
//! ```
//!
//! All numbers are in network byte order. What a kind does not use is 0.

use std::time::Duration;

use serde::Serialize;

use crate::key::Key;
use crate::membership::{ClusterId, HostId, Members};

/// Bytes of every message.
pub const LENGTH: usize = 136;
const MAGIC: [u8; 4] = *b"EMQH";
const VERSION: u8 = 1;
const TAG_AT: usize = 104;

/// One message as it is sent.
pub type Bytes = [u8; LENGTH];

/// What is leased: one virtual router, by its family and VRID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(u16);

/// A message between two hosts of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Who, to whom, and when.
    pub header: Header,
    /// What.
    pub body: Body,
}

/// What every message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sending host.
    pub sender: HostId,
    /// The host that it is for.
    pub receiver: HostId,
    /// The sender's start.
    pub epoch: u64,
    /// Grows with each message of the sender's epoch.
    pub counter: u64,
    /// What the sender knows as the receiver's epoch; 0: nothing yet. Only a message with the right one changes anything.
    pub receiver_epoch: u64,
    /// The hosts of the sender's file.
    pub members: Members,
    /// In an answer: the counter of the message that it answers.
    pub echo: u64,
    /// The asker's clock when it asked, in microseconds since its start; an answer gives it back.
    pub stamp: u64,
}

/// What is said. The first three are asked, the others are answers, and an answer is never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Are you there?
    Probe,
    /// Give me this resource, or let me keep it.
    Request {
        /// Which.
        resource: Resource,
        /// Which of the sender's claims this belongs to; the answer gives it back.
        claim: u32,
        /// The sender's rank.
        rank: u8,
        /// For how long.
        lease: Duration,
    },
    /// I do not hold this resource any more.
    Yield {
        /// Which.
        resource: Resource,
        /// Which of the sender's claims this ends.
        claim: u32,
    },
    /// To a probe and to a yield: it was heard.
    Heard {
        /// Of a yield: which; of a probe: none.
        resource: Resource,
        /// Of a yield: which claim.
        claim: u32,
    },
    /// To a request: it is yours.
    Grant {
        /// Which.
        resource: Resource,
        /// The request's claim.
        claim: u32,
        /// For how long, from when the request was sent.
        lease: Duration,
    },
    /// To a request: not yours.
    Refuse {
        /// Which.
        resource: Resource,
        /// The request's claim.
        claim: u32,
        /// Why.
        refusal: Refusal,
        /// For how long at most.
        left: Duration,
    },
    /// To a message with another epoch of the receiver than the right one: the header has that.
    Unacquainted,
    /// To a message with an epoch before the one that the receiver knows already.
    Outdated {
        /// The latest epoch that the receiver knows of the sender.
        known: u64,
    },
}

/// Why a voter does not grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Another host has the lease.
    Held,
    /// The voter has started less than a lease ago and does not know what it granted before.
    Abstains,
    /// The two hosts' files differ by more than one host.
    Membership,
    /// The voter has no room for another resource.
    Full,
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Discard {
    /// Not the length of a message.
    #[error("wrong length")]
    Length,
    /// Not this protocol, or not this version of it.
    #[error("not a heartbeat of this version")]
    Version,
    /// Another cluster's.
    #[error("of another cluster")]
    Cluster,
    /// For another host.
    #[error("for another host")]
    Receiver,
    /// From a host that is not in the file.
    #[error("from a host that is not in the cluster file")]
    Stranger,
    /// The tag is wrong.
    #[error("the tag is wrong: another key, or forged")]
    Tag,
    /// Authentic, but not understood.
    #[error("authentic, but malformed")]
    Malformed,
    /// Old: seen before, overtaken, or for an earlier run of this program.
    #[error("old: a duplicate, overtaken by a later one, or a replay")]
    Old,
}

impl Resource {
    /// The virtual router `vrid` of IPv4 or IPv6: two different routers (RFC 9568 §1.2).
    #[must_use]
    pub const fn new(ipv6: bool, vrid: u8) -> Self {
        Self((ipv6 as u16) << 8 | vrid as u16)
    }

    /// The VRID.
    #[must_use]
    pub const fn vrid(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// Whether the virtual router is IPv6's.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.0 >> 8 != 0
    }

    /// "ipv4" or "ipv6".
    #[must_use]
    pub const fn family(self) -> &'static str {
        if self.is_ipv6() { "ipv6" } else { "ipv4" }
    }
}

impl Body {
    /// Whether this is an answer.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Probe | Self::Request { .. } | Self::Yield { .. } => false,
            Self::Heard { .. }
            | Self::Grant { .. }
            | Self::Refuse { .. }
            | Self::Unacquainted
            | Self::Outdated { .. } => true,
        }
    }

    const fn fields(self) -> Fields {
        let none =
            Fields { kind: 0, resource: Resource(0), claim: 0, rank: 0, refusal: 0, span: Duration::ZERO, detail: 0 };
        match self {
            Self::Probe => Fields { kind: 1, ..none },
            Self::Request { resource, claim, rank, lease } => {
                Fields { kind: 2, resource, claim, rank, span: lease, ..none }
            }
            Self::Yield { resource, claim } => Fields { kind: 3, resource, claim, ..none },
            Self::Heard { resource, claim } => Fields { kind: 4, resource, claim, ..none },
            Self::Grant { resource, claim, lease } => Fields { kind: 5, resource, claim, span: lease, ..none },
            Self::Refuse { resource, claim, refusal, left } => {
                Fields { kind: 6, resource, claim, refusal: refusal.code(), span: left, ..none }
            }
            Self::Unacquainted => Fields { kind: 7, ..none },
            Self::Outdated { known } => Fields { kind: 8, detail: known, ..none },
        }
    }
}

/// The parts of a body where they stand in the message.
struct Fields {
    kind: u8,
    resource: Resource,
    claim: u32,
    rank: u8,
    refusal: u8,
    span: Duration,
    detail: u64,
}

impl Fields {
    fn body(self) -> Result<Body, Discard> {
        let Self { kind, resource, claim, rank, refusal, span, detail } = self;
        Ok(match kind {
            1 => Body::Probe,
            2 => Body::Request { resource, claim, rank, lease: span },
            3 => Body::Yield { resource, claim },
            4 => Body::Heard { resource, claim },
            5 => Body::Grant { resource, claim, lease: span },
            6 => {
                let refusal = Refusal::from_code(refusal).ok_or(Discard::Malformed)?;
                Body::Refuse { resource, claim, refusal, left: span }
            }
            7 => Body::Unacquainted,
            8 => Body::Outdated { known: detail },
            _ => return Err(Discard::Malformed),
        })
    }
}

impl Refusal {
    const fn code(self) -> u8 {
        match self {
            Self::Held => 1,
            Self::Abstains => 2,
            Self::Membership => 3,
            Self::Full => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Held),
            2 => Some(Self::Abstains),
            3 => Some(Self::Membership),
            4 => Some(Self::Full),
            _ => None,
        }
    }
}

/// The message as it is sent, with its tag.
#[must_use]
pub fn encode(message: &Message, key: &Key) -> Bytes {
    let (header, fields) = (&message.header, message.body.fields());
    let mut bytes = [0; LENGTH];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &MAGIC);
    put(4, &[VERSION, fields.kind]);
    put(6, &fields.resource.0.to_be_bytes());
    for (at, number) in [
        (8, header.cluster.0),
        (16, header.sender.0),
        (24, header.receiver.0),
        (32, header.epoch),
        (40, header.counter),
        (48, header.receiver_epoch),
        (56, header.members.digest),
        (80, header.echo),
        (88, header.stamp),
        (96, fields.detail),
    ] {
        put(at, &number.to_be_bytes());
    }
    put(64, &[header.members.count, fields.rank, fields.refusal, 0]);
    put(68, &fields.claim.to_be_bytes());
    put(72, &u32::try_from(fields.span.as_micros()).unwrap_or(u32::MAX).to_be_bytes());
    let tag = key.tag(&bytes[..TAG_AT]);
    bytes[TAG_AT..].copy_from_slice(&tag);
    bytes
}

/// The message in a datagram, if it is one for `receiver` in `cluster` by someone who has the key.
///
/// Cheap checks come first: a flood of something else costs no hash.
///
/// # Errors
/// Why it has to be dropped.
pub fn decode(datagram: &[u8], cluster: ClusterId, receiver: HostId, key: &Key) -> Result<Message, Discard> {
    let bytes: &Bytes = datagram.try_into().map_err(|_| Discard::Length)?;
    if bytes[..4] != MAGIC || bytes[4] != VERSION {
        return Err(Discard::Version);
    }
    let header = Header {
        cluster: ClusterId(long(bytes, 8)),
        sender: HostId(long(bytes, 16)),
        receiver: HostId(long(bytes, 24)),
        epoch: long(bytes, 32),
        counter: long(bytes, 40),
        receiver_epoch: long(bytes, 48),
        members: Members { digest: long(bytes, 56), count: bytes[64] },
        echo: long(bytes, 80),
        stamp: long(bytes, 88),
    };
    if header.cluster != cluster {
        return Err(Discard::Cluster);
    }
    if header.receiver != receiver {
        return Err(Discard::Receiver);
    }
    if !key.verify(&bytes[..TAG_AT], &bytes[TAG_AT..]) {
        return Err(Discard::Tag);
    }
    let fields = Fields {
        kind: bytes[5],
        resource: Resource(u16::from_be_bytes([bytes[6], bytes[7]])),
        claim: word(bytes, 68),
        rank: bytes[65],
        refusal: bytes[66],
        span: Duration::from_micros(u64::from(word(bytes, 72))),
        detail: long(bytes, 96),
    };
    Ok(Message { header, body: fields.body()? })
}

fn long(bytes: &Bytes, at: usize) -> u64 {
    u64::from(word(bytes, at)) << 32 | u64::from(word(bytes, at + 4))
}

fn word(bytes: &Bytes, at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
