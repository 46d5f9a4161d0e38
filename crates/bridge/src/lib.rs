//! Full-mesh fan-out between the brokers of a cluster: every broker sends each message that its own clients published to every
//! other broker, exactly once and in order, over mutual TLS.
//!
//! ```text
//!   clients ──▶ broker ──publish──▶ origin log ──one connection to each peer──▶ peer's inbound ──deliver──▶ its broker
//! ```
//!
//! The bridge lives in the broker's process: [`Bridge`] is what the broker calls, [`Local`] what it is asked.
//!
//! | module | subject | |
//! |---|---|---|
//! | [`bridge`], [`message`], [`state`] | what the broker sees | |
//! | `frame` | the protocol between two brokers, byte by byte | pure |
//! | `wire_message` | a message as it crosses the mesh | pure |
//! | `fanout` | who gets what, who is let in, why nothing loops | pure |
//! | `log`, `cursor`, `batch` | the origin log, where a peer stands in it, what goes into one write | pure |
//! | `link`, `backoff` | the sending side's state machine for one peer | pure |
//! | `inbound` | the receiving side's state machine for one origin: once, in order | pure |
//! | [`claim`] | which broker a client is connected to: the latest | pure |
//! | `alarm` | what an operator is to know at once | pure |
//! | [`groups`] | who has members of a shared subscription | pure |
//! | [`directions`] | which broker gives a message to a shared subscription | pure |
//! | [`words`] | what the store has of an entry besides its message | pure |
//! | `clock` | the hybrid logical clock | pure |
//! | `admission` | connections that are not yet known to be a peer's | pure |
//! | `mesh`, `spool` | what all tasks share: counters, the log behind its lock, what the store has of it | |
//! | `roster` | who is a peer now, and what is shared about each | |
//! | [`Hold`] | a message that peers may not have yet | |
//! | `identity` | certificates of both sides, and others in their place | |
//! | `driver`, `peer`, `listener`, `incoming`, `telling`, `wire` | tasks and connections | |

mod admission;
mod alarm;
mod backoff;
mod batch;
pub mod bridge;
pub mod claim;
mod clock;
mod cursor;
pub mod directions;
mod driver;
mod fanout;
mod frame;
pub mod groups;
mod hold;
mod identity;
mod inbound;
mod incoming;
mod link;
mod listener;
mod log;
mod mesh;
pub mod message;
mod peer;
mod roster;
#[cfg(test)]
mod simulation;
mod spool;
pub mod state;
mod telling;
mod wire;
mod wire_message;
pub mod words;

pub use bridge::{Bridge, BridgeError, Pressure};
pub use claim::{Claim, Clients, Standing};
pub use directions::{Directions, GroupId};
pub use groups::{Groups, Heard, Members};
pub use hold::Hold;
pub use mesh::PeersChanged;
pub use message::{Arrived, Keeper, Local, Message, Publisher, Recovered, Stamp, is_kept};
pub use state::{BridgeState, Filling, PeerState};
