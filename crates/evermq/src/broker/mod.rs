//! `evermq clients`, `sessions`, `subscriptions`, `retained`, `kick`, `trace`, `drain` on the broker's own host: what a broker has, seen and steered through its
//! control socket.

mod clients;
mod drain;
mod kick;
mod listing;
mod retained;
mod sessions;
mod subscriptions;
mod trace;

use crate::asking::Role;

pub use clients::{ClientsArgs, run as run_clients};
pub use drain::{Wanted, finish as finish_drain, run as run_drain};
pub use kick::{KickArgs, run as run_kick};
pub use retained::{RetainedArgs, run as run_retained};
pub use sessions::{SessionsArgs, run as run_sessions};
pub use subscriptions::{SubscriptionsArgs, run as run_subscriptions};
pub use trace::{TraceArgs, run as run_trace};

/// Whom these commands ask.
pub const BROKER: Role =
    Role { name: "broker", program: "evermq-broker", socket: "broker.sock", has: |host| host.broker };
