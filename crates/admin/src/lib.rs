//! How a cluster is: each host says it over HTTPS with certificates on both sides, and whoever asks puts it together.
//!
//! `evermq admin` runs on each host beside the programs that carry messages, as a process of its own: what reads requests of
//! browsers has no place in them. It asks their control sockets once a second, however many ask it.
//!
//! | module | subject | |
//! |---|---|---|
//! | [`report`] | what a host says of itself | types |
//! | [`local`] | asking the programs of this host | I/O |
//! | [`rates`] | messages in a second, of counters | pure |
//! | [`journal`] | what programs have said lately | pure |
//! | [`sampler`] | asks them again and again | I/O |
//! | [`overview`] | what the hosts' reports come to: holder, verdict, a row for each host | pure |
//! | [`timeline`] | transitions out of all that was said, and how long something was away | pure |
//! | [`remote`] | asking a host's endpoint | I/O |
//! | [`mirror`] | what all hosts say, for the page | I/O |
//! | [`endpoint`] | answers over HTTPS | I/O |
//! | [`service`] | the program `evermq admin` | I/O |

pub mod endpoint;
pub mod journal;
pub mod local;
pub mod mirror;
pub mod overview;
pub mod rates;
pub mod remote;
pub mod report;
pub mod sampler;
pub mod service;
pub mod timeline;

/// The control socket of `evermq admin` in the run directory.
pub const CONTROL_SOCKET: &str = "admin.sock";
/// The program's name, in lists of programs.
pub const PROGRAM: &str = "evermq-admin";
