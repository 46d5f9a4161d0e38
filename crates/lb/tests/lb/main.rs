//! `evermq-lb` and its parts, with real sockets and real peers on loopback.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::disallowed_methods, reason = "tests have a clock")]

mod drain;
mod failover;
mod greeting;
mod harness;
mod health;
mod kept;
mod limits;
mod mosquitto;
mod peers;
mod pki;
mod program;
mod relay;
mod reload;
mod storm;
mod termination;
mod tls;
mod tls_memory;
mod upgrade;
mod view;
