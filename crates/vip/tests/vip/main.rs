//! `evermq-vip` and its parts: in network namespaces beside real peers, and on a virtual clock.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::disallowed_methods, reason = "these tests use real time")]

mod conflict;
mod failover;
mod groups;
mod guard;
mod handover;
mod keepalived;
mod keepalived_soak;
mod keepalived_v2;
mod keepalived_v6;
mod kernel_accept;
mod kernel_address;
mod kernel_claims;
mod kernel_virtual_mac;
mod kernel_wire;
mod link;
mod measure;
mod metrics;
mod net;
mod privileges;
mod quorum;
mod reload;
mod sim;
mod simulation;
mod soak;
mod tickle;
mod tracks;
mod virtual_mac;
