//! Other hosts, over the system's ssh: its configuration, agents and jump hosts count.
//!
//! | module | subject |
//! |---|---|
//! | [`ssh`] | one connection to each host, commands over it |

pub mod ssh;

pub use self::ssh::{Ended, RemoteArgs, RemoteError, Ssh};
