//! The operator's command, as its user runs it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod admin;
mod broker;
mod certs;
mod certs_life;
mod check;
mod client;
mod command;
mod deploy;
mod docs;
mod drain_afar;
mod foreign_authority;
mod handshake;
mod hosts;
mod import;
mod init;
mod lab;
mod lb;
mod passwd;
mod program;
