//! `evermq connections`, `evermq backend`, `evermq drain`, `evermq rebalance`: what an lb does, seen and steered through its control
//! socket, or at its host's endpoint.

mod backend;
mod connections;
mod drain;
mod drain_afar;
mod rebalance;
mod render;

use crate::asking::Role;

pub use backend::{BackendArgs, run as run_backend};
pub use connections::{ConnectionsArgs, run as run_connections};
pub use drain::{DrainArgs, run as run_drain};
pub use rebalance::{RebalanceArgs, run as run_rebalance};

/// Whom these commands ask.
const LB: Role = Role { name: "lb", program: "evermq-lb", socket: "lb.sock", has: |host| host.lb };
