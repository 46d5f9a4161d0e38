//! Descriptors: how many clients there is room for, and who gets which numbers.

use std::os::fd::RawFd;

use evermq_daemon::limits;
use nix::sys::resource::{Resource, getrlimit};

use crate::engine::splice;

/// Descriptors for everything but clients and what workers have: control socket, sessions to brokers, logs.
const OTHER_DESCRIPTORS: usize = 128;
/// Of these, for connections on which health is told: evermq-vip's, and an operator's or two.
pub(super) const HEALTH_DESCRIPTORS: usize = 16;

/// What there are descriptors for, and who gets which.
///
/// Clients, and what is made while the lb runs, get the lowest that are free. Above all of these are the connections on which
/// health is told, and the listeners highest: a process that is killed closes its descriptors by their order. Were a listener
/// among those of clients, a client that hears of the end and comes again at once would be accepted by the dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// `max_connections`, or as many as there are descriptors for: two each. Above that accepting rests, instead of clients
    /// being accepted for whom no connection to a broker can be made.
    pub(crate) connections: usize,
    pub(super) health_from: RawFd,
    pub(crate) listeners_from: RawFd,
}

impl Room {
    pub(super) fn new(max_connections: usize, workers: usize, fronts: usize) -> Self {
        // Each worker has its listeners, epoll twice, an inbox, and pipes.
        let others = OTHER_DESCRIPTORS + HEALTH_DESCRIPTORS + workers * (fronts + 3 + 2 * splice::PIPES);
        let wanted = max_connections.saturating_mul(2).saturating_add(others);
        limits::raise_open_files(wanted);
        let files =
            getrlimit(Resource::RLIMIT_NOFILE).map_or(wanted, |(soft, _)| usize::try_from(soft).unwrap_or(wanted));
        Self::of(max_connections, workers * fronts, others, files)
    }

    pub(super) fn of(max_connections: usize, listeners: usize, others: usize, files: usize) -> Self {
        let connections = max_connections.min(files.saturating_sub(others) / 2).max(1);
        let top = (2 * connections + others).min(files);
        let from = |below: usize| RawFd::try_from(top.saturating_sub(below)).unwrap_or(RawFd::MAX);
        Self { connections, health_from: from(listeners + HEALTH_DESCRIPTORS), listeners_from: from(listeners) }
    }
}
