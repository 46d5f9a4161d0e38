//! The guard: a second small process that outlives the daemon's death by a moment, and sees when the daemon is frozen.
//!
//! A daemon that is killed with -9 leaves the VIP on the interface and tells nobody; one that is stopped (SIGSTOP, a
//! debugger, a hung disk under its memory) goes on holding it while another host takes over. So the daemon starts its own
//! program a second time and tells it over a socket pair what is held:
//!
//! ```text
//!   daemon ---- what is held, and how to leave it ----> guard     socket pair
//!   daemon ---- time of its last turn ----------------> guard     a page of shared memory: no system call, no wake-up
//!   daemon killed: end-of-file                          guard: priority 0, linger, remove the addresses, end
//!   daemon frozen: no turn for its own master-down      guard: remove the addresses, say nothing
//!                  interval and a margin
//! ```
//!
//! - The guard keeps the address after a kill for as long as a daemon that stops does (see `fsm/linger.rs`): clients are
//!   answered until the successor is heard.
//! - It says nothing for a frozen daemon: its peers have taken over by silence. The daemon, when it wakes, finds itself late
//!   and steps back.
//! - A daemon that was started again meanwhile has removed what was stale before anything else. The guard of the dead one
//!   sees that somebody answers on the control socket, and touches nothing any more.
//! - Under systemd the guard of a killed daemon is killed as well (`KillMode=mixed`), and `ExecStopPost` does its work.
//!
//! | module | subject |
//! |---|---|
//! | [`machine`] | the decisions, pure |
//! | [`wire`] | what goes over the socket pair |
//! | [`beat`] | the shared page |
//! | [`process`] | the guard's own program |
//! | [`keeper`] | the daemon's side: starts it, tells it, replaces it |

pub mod beat;
pub mod keeper;
pub mod machine;
pub mod process;
pub mod wire;
