//! The workers: one thread each, with an event loop of its own.
//!
//! Nearly all that a relayed message costs is spent in the kernel, so what counts is how often it is called: for a new
//! client one accept, one read of its greeting, a socket to a backend; for a message one receive and one send. Epoll is
//! edge-triggered and told of each socket once; time is read once for a batch of events; deadlines cost no system call.
//!
//! | module | subject | |
//! |---|---|---|
//! | [`turn`] | the loop: epoll, time, orders, each connection's turn | I/O |
//! | [`orders`] | what other threads want, and closing many | I/O |
//! | [`ending`] | the end of a connection | I/O |
//! | [`core`] | what every step of a connection uses | I/O |
//! | [`accepting`] | how many clients are accepted, and what happens at the limit | I/O |
//! | [`moving`] | connections that leave for another process, or come from one | I/O |
//! | [`connection`] | what is kept of one client | |
//! | [`greeting`] | what a client says first | I/O |
//! | [`handshakes`] | places and work for TLS handshakes | pure |
//! | [`secure`] | TLS that ends here | I/O |
//! | [`connecting`] | a backend for it | I/O |
//! | [`lobby`] | clients that wait for a backend | |
//! | [`relaying`] | bytes both ways | I/O |
//! | [`flow`] | one direction: what to do next | pure |
//! | [`splice`] | pipes for bulk | I/O |
//! | [`socket`] | system calls | I/O |
//! | [`timers`] | deadlines | pure |
//! | [`listener`] | listening sockets | I/O |
//! | [`gate`] | the limit that all workers share | atomics |
//! | [`inbox`] | orders of other threads | |
//! | [`worker`] | a worker as other threads see it | atomics |
//! | [`ended`] | what is told of a connection that has ended | |
//! | [`figures`] | what is counted of a listener | atomics |
//! | [`steering`] | who is connected, close some, listen elsewhere | I/O |
//! | [`threads`] | start and end | I/O |

mod accepting;
mod connecting;
mod connection;
mod core;
pub mod ended;
mod ending;
pub(crate) mod figures;
mod flow;
pub(crate) mod gate;
mod greeting;
mod handshakes;
pub(crate) mod inbox;
pub(crate) mod listener;
mod lobby;
pub(crate) mod moving;
mod orders;
mod relaying;
mod secure;
mod socket;
pub(crate) mod splice;
pub(crate) mod steering;
pub(crate) mod threads;
mod timers;
pub(crate) mod turn;
pub(crate) mod worker;
