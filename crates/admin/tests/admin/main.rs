//! The endpoint as hosts, people and browsers meet it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod acting;
mod cluster;
mod site;
