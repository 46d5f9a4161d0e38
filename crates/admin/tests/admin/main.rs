//! The endpoint as hosts, people and browsers meet it; the alert rules; what the dashboard asks for.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod acting;
mod cluster;
mod dashboard;
mod listening;
mod rules;
mod site;
mod strangers;
