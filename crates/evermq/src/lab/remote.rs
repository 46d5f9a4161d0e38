//! The lab's keeper and hosts, as commands outside the lab see them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use evermq_daemon::control::{self, ControlError};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::LabError;
use super::plan::{self, Program};
use super::registry::Lab;
use super::wire::{self, HostRequest, HostState, KeeperRequest, ProgramState};
use super::{host, keeper};

/// How long the keeper may take: it starts and kills hosts.
const KEEPER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a host may take.
const HOST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a program may take to say how it is; a frozen one never does.
const PROGRAM_TIMEOUT: Duration = Duration::from_millis(500);

/// A way into a host, good until that host is killed.
pub(super) struct Door {
    /// Its namespaces, in the order of [`super::namespace::ENTERED`].
    pub(super) namespaces: Vec<OwnedFd>,
    root: OwnedFd,
}

/// Asks the keeper.
pub(super) fn keeper<A: DeserializeOwned>(lab: &Lab, request: &KeeperRequest) -> Result<A, LabError> {
    wire::ask(&lab.directory().join(keeper::SOCKET), request, KEEPER_TIMEOUT)
}

/// Every host of the lab.
pub(super) fn hosts(lab: &Lab) -> Result<Vec<HostState>, LabError> {
    keeper(lab, &KeeperRequest::Hosts)
}

/// Asks a host.
pub(super) fn host<A: DeserializeOwned>(lab: &Lab, name: &str, request: &HostRequest) -> Result<A, LabError> {
    host_and_descriptors(lab, name, request).map(|(answer, _)| answer)
}

/// What a host's programs do.
pub(super) fn programs(lab: &Lab, name: &str) -> Result<Vec<ProgramState>, LabError> {
    host(lab, name, &HostRequest::Programs)
}

/// A way into a host.
pub(super) fn door(lab: &Lab, name: &str) -> Result<Door, LabError> {
    let (_, mut namespaces) = host_and_descriptors::<Value>(lab, name, &HostRequest::Enter)?;
    let root = namespaces.pop().ok_or_else(|| LabError::Refused(format!("host {name} gave no way into it")))?;
    Ok(Door { namespaces, root })
}

impl Door {
    /// What a program of the host says of itself on its control socket.
    pub(super) fn state(&self, program: Program) -> Result<Value, ControlError> {
        let socket = wire::through(&self.root, &format!("run/evermq/{}", program.control_socket()));
        control::request(&socket, &json!({ "request": "state" }), PROGRAM_TIMEOUT)
    }
}

/// The lab's host of that name.
pub(super) fn must_exist(name: &str) -> Result<&'static plan::Host, LabError> {
    plan::Host::named(name).ok_or_else(|| LabError::UnknownHost(name.to_owned()))
}

fn host_and_descriptors<A: DeserializeOwned>(
    lab: &Lab,
    name: &str,
    request: &HostRequest,
) -> Result<(A, Vec<OwnedFd>), LabError> {
    must_exist(name)?;
    let socket = lab.host_directory(name).join(host::SOCKET);
    match wire::ask_for_descriptors(&socket, request, HOST_TIMEOUT) {
        Err(LabError::Io { source, .. })
            if matches!(source.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) =>
        {
            let options = lab.options();
            Err(LabError::Refused(format!("host {name} is dead; `evermq lab{options} heal {name}` starts it again")))
        }
        result => result,
    }
}
