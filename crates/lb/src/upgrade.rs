//! Another process of the program takes over, and nobody notices: sockets that listen, connections that relay, and those who
//! watch the health, pass from the old process to the new one.
//!
//! | module | subject | |
//! |---|---|---|
//! | [`frame`], [`message`] | what goes over the wire | pure |
//! | [`channel`] | frames and descriptors between the two processes | I/O |
//! | [`parcel`] | connections on their way | |
//! | [`program`] | starting the new process | I/O |
//! | [`leaving`], [`bequest`] | where systemd restarts the unit: the same for a process that is not there yet | I/O |
//! | [`giver`], [`taker`] | drive those steps | I/O |
//! | [`handover`], [`takeover`] | the steps of the old process, and of the new one | pure |

pub(crate) mod bequest;
pub mod channel;
pub mod frame;
pub(crate) mod giver;
pub mod handover;
pub(crate) mod leaving;
pub mod message;
pub mod parcel;
pub mod program;
pub mod takeover;
pub(crate) mod taker;

#[cfg(test)]
mod tests;
