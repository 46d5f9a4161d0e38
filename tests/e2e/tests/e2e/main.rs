//! The whole stack in the lab, against real clients.

mod admin;
mod broker;
mod cut;
mod faults;
mod history;
mod joining;
mod journal;
mod lb;
mod stack;
mod strangers;
mod vip;
