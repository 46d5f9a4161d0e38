//! Waiting until a whole lab works: brokers linked, load balancers with brokers, the VIP held by exactly one, and that to be seen
//! at every host.

use std::time::{Duration, Instant};

use super::error::LabError;
use super::interrupt::Interrupt;
use super::plan::{self, HOSTS, Program};
use super::registry::Lab;
use super::remote::{self, Door};
use super::view::{self, BrokerView, LbView, VipView};
use super::{clock, commands};

/// How long all of it may take. It takes about a second.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
/// How often the programs are asked.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long endpoints may take to find every program up. Where settings keep one from it, the lab is ready all the same.
const SETTLING: Duration = Duration::from_secs(2);
/// Log lines that a failure shows.
const LINES: usize = 10;

/// What has to be true, in the order in which it comes true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Linked,
    Balancing,
    Held,
    Shown,
}

/// What is missing, and whose log may say why.
struct Missing {
    host: &'static str,
    program: Program,
    what: String,
}

/// Waits until every program works; tells `say` each step.
pub(super) fn wait(lab: &Lab, interrupt: &Interrupt, mut say: impl FnMut(&str)) -> Result<(), LabError> {
    let deadline = clock::now() + TIMEOUT;
    let doors = Doors::open(lab)?;
    for stage in [Stage::Linked, Stage::Balancing, Stage::Held, Stage::Shown] {
        say(&doors.wait(stage, deadline, interrupt)?);
    }
    let settled = clock::now() + SETTLING;
    while !doors.all_are_seen_up() && clock::now() < settled && !interrupt.happened() {
        clock::pause(INTERVAL);
    }
    Ok(())
}

/// Waits until the VIP is held by exactly one host; gives its name.
pub(super) fn holder(lab: &Lab, interrupt: &Interrupt) -> Result<&'static str, LabError> {
    let doors = Doors::open(lab)?;
    doors.wait(Stage::Held, clock::now() + TIMEOUT, interrupt)?;
    doors
        .masters()
        .map(|masters| masters.first().copied().unwrap_or_default())
        .map_err(|missing| doors.failure(&missing))
}

struct Doors<'a> {
    lab: &'a Lab,
    doors: Vec<(&'static plan::Host, Door)>,
}

impl<'a> Doors<'a> {
    /// Ways into the hosts that live.
    fn open(lab: &'a Lab) -> Result<Self, LabError> {
        let alive: Vec<String> =
            remote::hosts(lab)?.into_iter().filter(|host| host.alive).map(|host| host.name).collect();
        let hosts = HOSTS.iter().filter(|host| alive.iter().any(|name| name == host.name));
        let doors = hosts.map(|host| Ok((host, remote::door(lab, host.name)?))).collect::<Result<_, LabError>>()?;
        Ok(Self { lab, doors })
    }

    fn wait(&self, stage: Stage, deadline: Instant, interrupt: &Interrupt) -> Result<String, LabError> {
        loop {
            if interrupt.happened() {
                return Err(LabError::Interrupted);
            }
            self.all_run().map_err(|missing| self.failure(&missing))?;
            let missing = match self.look(stage) {
                Ok(text) => return Ok(text),
                Err(missing) => missing,
            };
            if clock::now() >= deadline {
                return Err(self.failure(&missing));
            }
            clock::pause(INTERVAL);
        }
    }

    fn look(&self, stage: Stage) -> Result<String, Missing> {
        match stage {
            Stage::Linked => self.linked(),
            Stage::Balancing => self.balancing(),
            Stage::Held => match self.masters()?.as_slice() {
                [host] => Ok(format!("VIP {} is held by {host}", plan::VIP)),
                [] => Err(self.missing_vip("no host holds the VIP")),
                _ => Err(self.missing_vip("both load balancers hold the VIP")),
            },
            Stage::Shown => self.shown(),
        }
    }

    /// No program has ended.
    fn all_run(&self) -> Result<(), Missing> {
        for (host, _) in &self.doors {
            let states = remote::programs(self.lab, host.name).unwrap_or_default();
            for state in states.iter().filter(|state| state.pid.is_none()) {
                let Some(program) = Program::named(&state.name) else { continue };
                let what = state.ended.clone().unwrap_or_else(|| "was not started".to_owned());
                return Err(Missing { host: host.name, program, what });
            }
        }
        Ok(())
    }

    fn linked(&self) -> Result<String, Missing> {
        let mut names = Vec::new();
        for (host, door) in self.with(Program::Broker) {
            let broker = BrokerView::new(&ask(host, door, Program::Broker)?);
            if !view::all_good(&broker.peers) {
                let what = format!("is linked to {} other brokers", view::share(&broker.peers));
                return Err(Missing { host: host.name, program: Program::Broker, what });
            }
            names.push(host.name);
        }
        Ok(format!("{} are linked", names.join(" and ")))
    }

    fn balancing(&self) -> Result<String, Missing> {
        let mut names = Vec::new();
        for (host, door) in self.with(Program::Lb) {
            let lb = LbView::new(&ask(host, door, Program::Lb)?);
            if !view::all_good(&lb.backends) {
                let what = format!("sees {} brokers up", view::share(&lb.backends));
                return Err(Missing { host: host.name, program: Program::Lb, what });
            }
            names.push(host.name);
        }
        Ok(format!("{} see every broker up", names.join(" and ")))
    }

    fn shown(&self) -> Result<String, Missing> {
        for (host, door) in self.with(Program::Admin) {
            let state = ask(host, door, Program::Admin)?;
            if !state["listen"].is_string() {
                let what = "serves nothing".to_owned();
                return Err(Missing { host: host.name, program: Program::Admin, what });
            }
        }
        Ok(format!("every host says how the cluster is, at port {}", plan::ADMIN_PORT))
    }

    /// Whether the endpoints have seen what the stages before have: they ask the programs now and then only.
    fn all_are_seen_up(&self) -> bool {
        self.with(Program::Admin).all(|(host, door)| {
            let state = ask(host, door, Program::Admin).unwrap_or(serde_json::Value::Null);
            let programs = state["programs"].as_object();
            programs.is_some_and(|programs| {
                programs.len() + 1 == host.programs.len() && programs.values().all(|health| health == "up")
            })
        })
    }

    fn masters(&self) -> Result<Vec<&'static str>, Missing> {
        let mut masters = Vec::new();
        for (host, door) in self.with(Program::Vip) {
            if VipView::new(&ask(host, door, Program::Vip)?).is_master() {
                masters.push(host.name);
            }
        }
        Ok(masters)
    }

    fn with(&self, program: Program) -> impl Iterator<Item = (&'static plan::Host, &Door)> {
        self.doors.iter().filter(move |(host, _)| host.programs.contains(&program)).map(|(host, door)| (*host, door))
    }

    fn missing_vip(&self, what: &str) -> Missing {
        let host = self.with(Program::Vip).next().map_or("lb1", |(host, _)| host.name);
        Missing { host, program: Program::Vip, what: what.to_owned() }
    }

    fn failure(&self, missing: &Missing) -> LabError {
        let Missing { host, program, what } = missing;
        let program = program.name();
        let path = self.lab.host_directory(host).join(format!("logs/{program}.log"));
        let mut text = format!("not ready: {program} on {host}: {what}");
        let lines = commands::tail(&path, LINES);
        if lines.is_empty() {
            text.push_str("\nit has logged nothing");
        } else {
            text.push_str(&format!("\nits last log lines ({}):", path.display()));
            for line in lines.lines() {
                text.push_str(&format!("\n  {line}"));
            }
        }
        LabError::NotReady(text)
    }
}

fn ask(host: &plan::Host, door: &Door, program: Program) -> Result<serde_json::Value, Missing> {
    let host = plan::Host::named(host.name).map_or("", |host| host.name);
    door.state(program).map_err(|_| Missing { host, program, what: "does not answer on its control socket".to_owned() })
}
