//! `lab status`: hosts, cables, programs, the holder of the VIP, what load balancers and brokers see.

use serde::Serialize;
use serde_json::Value;

use super::error::LabError;
use super::plan::{self, HOSTS, Program};
use super::registry::Lab;
use super::remote::{self, Door};
use super::view::{self, BrokerView, LbView, VipView};
use super::wire::HostState;
use crate::table::Table;

/// A lab.
#[derive(Debug, Serialize)]
pub(super) struct LabStatus {
    name: String,
    directory: std::path::PathBuf,
    vip: VipStatus,
    hosts: Vec<HostStatus>,
}

/// Where the VIP is.
#[derive(Debug, Serialize)]
struct VipStatus {
    address: std::net::Ipv4Addr,
    port: u16,
    /// One, if all is well.
    holders: Vec<&'static str>,
}

/// A host.
#[derive(Debug, Serialize)]
struct HostStatus {
    name: &'static str,
    address: std::net::Ipv4Addr,
    alive: bool,
    /// The cable is in.
    connected: bool,
    /// It does not reach the other hosts that are cut.
    cut: bool,
    programs: Vec<ProgramStatus>,
}

/// A program.
#[derive(Debug, Serialize)]
struct ProgramStatus {
    name: String,
    /// In the host.
    pid: Option<i32>,
    /// How it ended last.
    ended: Option<String>,
    starts: u32,
    /// What it says of itself; null where it does not answer.
    state: Value,
    #[serde(skip)]
    summary: String,
}

/// Asks keeper, hosts and programs.
pub(super) fn look(lab: &Lab) -> Result<LabStatus, LabError> {
    lab.must_be_up()?;
    let states = remote::hosts(lab)?;
    let hosts: Vec<HostStatus> = HOSTS
        .iter()
        .filter_map(|plan| states.iter().find(|state| state.name == plan.name).map(|state| (plan, state)))
        .map(|(plan, state)| look_at(lab, plan, state))
        .collect();
    let holds = |host: &&HostStatus| {
        let vip = host.programs.iter().find(|program| program.name == Program::Vip.name());
        vip.is_some_and(|vip| VipView::new(&vip.state).is_master())
    };
    let holders = hosts.iter().filter(holds).map(|host| host.name).collect();
    Ok(LabStatus {
        name: lab.name().to_owned(),
        directory: lab.directory().to_owned(),
        vip: VipStatus { address: plan::VIP, port: plan::VIP_PORT, holders },
        hosts,
    })
}

fn look_at(lab: &Lab, plan: &plan::Host, state: &HostState) -> HostStatus {
    let door = if state.alive { remote::door(lab, plan.name).ok() } else { None };
    let programs = door.as_ref().and_then(|_| remote::programs(lab, plan.name).ok()).unwrap_or_default();
    let program = |program: super::wire::ProgramState| {
        let asked = Program::named(&program.name).filter(|_| program.pid.is_some()).zip(door.as_ref());
        let answer = asked.map(|(named, door)| (named, Door::state(door, named)));
        let summary = match &answer {
            Some((named, Ok(state))) => summary(*named, state),
            Some((_, Err(_))) => "runs, but does not answer".to_owned(),
            None => program.ended.clone().unwrap_or_else(|| "not started".to_owned()),
        };
        ProgramStatus {
            pid: program.pid,
            ended: program.ended,
            starts: program.starts,
            state: answer.and_then(|(_, state)| state.ok()).unwrap_or_default(),
            name: program.name,
            summary,
        }
    };
    HostStatus {
        name: HOSTS.iter().find(|host| host.name == plan.name).map_or("", |host| host.name),
        address: plan.address(),
        alive: state.alive,
        connected: state.connected,
        cut: state.cut,
        programs: programs.into_iter().map(program).collect(),
    }
}

fn summary(program: Program, state: &Value) -> String {
    match program {
        Program::Vip => VipView::new(state).state,
        Program::Lb => {
            let lb = LbView::new(state);
            format!("{} brokers up, {}", view::share(&lb.backends), count(lb.connections, "connection"))
        }
        Program::Broker => {
            let broker = BrokerView::new(state);
            format!("{}, linked to {} brokers", count(broker.connections, "connection"), view::share(&broker.peers))
        }
        Program::Admin => match state["listen"].as_str() {
            Some(address) => format!("serves https://{address}"),
            None => "serves nothing".to_owned(),
        },
    }
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl LabStatus {
    /// As a table.
    pub(super) fn text(&self) -> String {
        let service = plan::service();
        let vip = match self.vip.holders.as_slice() {
            [] => format!("{service} is held by no host"),
            holders => format!("{service} is held by {}", holders.join(" and ")),
        };
        let mut table = Table::titled(&["HOST", "ADDRESS", "CABLE", "PROGRAM", "PID", "STATE"]);
        for host in &self.hosts {
            let address = host.address.to_string();
            let cable = match (host.connected, host.cut) {
                (false, _) => "out",
                (true, false) => "in",
                (true, true) => "in, cut",
            };
            if !host.alive {
                table.row([host.name, &address, cable, "-", "-", "host is dead"]);
            } else if host.programs.is_empty() {
                table.row([host.name, &address, cable]);
            }
            for (index, program) in host.programs.iter().enumerate() {
                let pid = program.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
                let [name, address, cable] = if index == 0 { [host.name, &address, cable] } else { [""; 3] };
                table.row([name, address, cable, &program.name, &pid, &program.summary]);
            }
        }
        format!("lab \"{}\": VIP {vip}\n\n{table}", self.name)
    }
}
