//! What has to be done on which host, and in which order: all that is safe at once, the rest one host after the other.
//!
//! Order of a change: packages (brokers at once, as nothing of them stops; then the lb hosts, the one with the VIP last), files,
//! their check on the host itself; reloads of brokers, so that they let in who is new before it starts; first starts (brokers, then lbs,
//! then the VIP); reloads of lbs; restarts of what runs already: brokers one by one, each drained before it stops, the standby lbs, and
//! the active one at the very end.

use std::path::PathBuf;

use evermq_config::Cluster;
use evermq_config::cluster::Host;

use super::files::HostFile;
use super::observed::Observed;
use super::packages::Package;

/// What one host is to be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The host.
    pub host: Host,
    /// The package for it; none where what is installed is to stay.
    pub package: Option<Package>,
    /// Its files.
    pub files: Vec<HostFile>,
    /// Its programs, in the order in which they start: broker, lb, vip.
    pub programs: Vec<&'static str>,
}

/// Something that is done on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep what is there, for `evermq rollback`.
    Keep,
    /// Send the package and install it.
    Install(Package),
    /// Put files in place: those at these places of the host's list.
    Write(Vec<PathBuf>),
    /// Files that a host refuses, as they were: what was kept in its place again, and away with what was not there.
    Unwrite {
        /// There before, and kept.
        back: Vec<PathBuf>,
        /// Not there before.
        away: Vec<PathBuf>,
    },
    /// Bring back what was kept.
    Restore,
    /// `evermq check` on the host.
    Check,
    /// Have these programs start with the host, and start them now.
    Start(Vec<&'static str>),
    /// Have the programs take over the changed file.
    Reload,
    /// Send the clients away, if there is another broker to take them; then restart.
    RestartBroker {
        /// Whether there is another broker.
        drain: bool,
        /// Clients in a second, if the operator says how many.
        rate: Option<u32>,
    },
    /// Have the lb hand over to the new version, and restart the VIP's program, where they run an old one.
    RestartLb {
        /// Restart in any case.
        always: bool,
    },
}

/// Steps that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// In words.
    pub title: &'static str,
    /// At once on all of their hosts, or one after the other.
    pub at_once: bool,
    /// Hosts by their place in the list, and what is done there.
    pub steps: Vec<(usize, Action)>,
    /// What is done at once where one of them fails.
    pub undo: Vec<(usize, Action)>,
}

/// What the operator said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Restart programs that run already, one host after the other.
    pub restart: bool,
    /// Bring back what was there before the last change.
    pub rollback: bool,
    /// Clients in a second that a drained broker sends away.
    pub drain_rate: Option<u32>,
}

/// The programs of a host, in the order in which they start.
#[must_use]
pub fn programs_of(cluster: &Cluster, host: &Host) -> Vec<&'static str> {
    let programs = [(host.broker, "broker"), (host.lb, "lb"), (host.lb && cluster.vip.is_some(), "vip")];
    programs.into_iter().filter(|(has, _)| *has).map(|(_, program)| program).collect()
}

/// The stages of a change; none where there is nothing to do.
#[must_use]
pub fn plan(wanted: &[Wanted], observed: &[Observed], options: Options) -> Vec<Stage> {
    let planner = Planner { wanted, observed, options };
    let stages = [
        planner.keep(),
        planner.packages_of_brokers(),
        planner.packages_of_lbs(),
        planner.restore(),
        planner.files(),
        planner.checks(),
        planner.reloads(true, "reload brokers"),
        planner.starts("broker", "start brokers"),
        planner.starts("lb", "start load balancers"),
        planner.starts("vip", "start the VIP"),
        planner.reloads(false, "reload load balancers"),
        planner.broker_restarts(),
        planner.lb_restarts(),
    ];
    stages.into_iter().filter(|stage| !stage.steps.is_empty()).collect()
}

struct Planner<'a> {
    wanted: &'a [Wanted],
    observed: &'a [Observed],
    options: Options,
}

impl Planner<'_> {
    fn hosts(&self) -> impl Iterator<Item = (usize, &Wanted, &Observed)> {
        self.wanted.iter().zip(self.observed).enumerate().map(|(index, (wanted, observed))| (index, wanted, observed))
    }

    fn new_package<'a>(&self, wanted: &'a Wanted, observed: &Observed) -> Option<&'a Package> {
        let package = wanted.package.as_ref().filter(|_| !self.options.rollback)?;
        (observed.version.as_deref() != Some(package.version.as_str())).then_some(package)
    }

    fn changed_files(&self, wanted: &Wanted, observed: &Observed) -> Vec<PathBuf> {
        let is_new = |file: &&HostFile| observed.digests.get(&file.path) != Some(&file.digest());
        if self.options.rollback {
            Vec::new()
        } else {
            wanted.files.iter().filter(is_new).map(|file| file.path.clone()).collect()
        }
    }

    fn changes(&self, wanted: &Wanted, observed: &Observed) -> bool {
        self.new_package(wanted, observed).is_some()
            || !self.changed_files(wanted, observed).is_empty()
            || self.is_restored(observed)
    }

    fn is_restored(&self, observed: &Observed) -> bool {
        self.options.rollback && observed.previous.is_some()
    }

    fn stage(&self, title: &'static str, at_once: bool, step: impl Fn(&Wanted, &Observed) -> Option<Action>) -> Stage {
        let steps = self.hosts().filter_map(|(index, wanted, observed)| Some((index, step(wanted, observed)?)));
        let mut steps: Vec<_> = steps.collect();
        if !at_once {
            // Brokers, then lb hosts, and whoever has the VIP at the very end.
            steps.sort_by_key(|(index, _)| (self.observed[*index].holds_vip, self.wanted[*index].host.lb));
        }
        Stage { title, at_once, steps, undo: Vec::new() }
    }

    fn keep(&self) -> Stage {
        self.stage("keep what is there", true, |wanted, observed| {
            // What is restored must not take its own place.
            (self.changes(wanted, observed) && observed.version.is_some() && !self.options.rollback)
                .then_some(Action::Keep)
        })
    }

    fn packages_of_brokers(&self) -> Stage {
        // Installing stops nothing; where nothing runs yet there is nothing to be careful of either.
        self.stage("packages", true, |wanted, observed| {
            let careful = wanted.host.lb && observed.is_active();
            let package = self.new_package(wanted, observed).filter(|_| !careful)?;
            Some(Action::Install(package.clone()))
        })
    }

    fn packages_of_lbs(&self) -> Stage {
        // The package has the lb hand over and restarts a standby's VIP program.
        self.stage("packages of load balancers", false, |wanted, observed| {
            let careful = wanted.host.lb && observed.is_active();
            let package = self.new_package(wanted, observed).filter(|_| careful)?;
            Some(Action::Install(package.clone()))
        })
    }

    fn restore(&self) -> Stage {
        self.stage("bring back what was there before", false, |_, observed| {
            self.is_restored(observed).then_some(Action::Restore)
        })
    }

    fn files(&self) -> Stage {
        self.stage("files", true, |wanted, observed| {
            let files = self.changed_files(wanted, observed);
            (!files.is_empty()).then_some(Action::Write(files))
        })
    }

    fn checks(&self) -> Stage {
        let checks =
            self.stage("check", true, |wanted, observed| self.changes(wanted, observed).then_some(Action::Check));
        // Whoever starts again meanwhile must not find a file that one of the hosts refuses.
        let undo = self.stage("files of before", true, |wanted, observed| self.unwrite(wanted, observed)).steps;
        Stage { undo, ..checks }
    }

    fn unwrite(&self, wanted: &Wanted, observed: &Observed) -> Option<Action> {
        let changed = self.changed_files(wanted, observed);
        let (mut back, away): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|path| observed.digests.contains_key(path));
        // Files without EverMQ are nobody's, and are not kept.
        back.retain(|_| observed.version.is_some());
        (!(back.is_empty() && away.is_empty())).then_some(Action::Unwrite { back, away })
    }

    fn starts(&self, program: &'static str, title: &'static str) -> Stage {
        self.stage(title, true, |wanted, observed| {
            let unit = observed.unit(program);
            let wants = wanted.programs.contains(&program) && !(unit.active && unit.enabled);
            wants.then(|| Action::Start(vec![program]))
        })
    }

    /// A broker that is new to its cluster is ready when it has what the others have, and they have to know it for that.
    fn reloads(&self, brokers: bool, title: &'static str) -> Stage {
        self.stage(title, false, |wanted, observed| {
            let changed = !self.changed_files(wanted, observed).is_empty() || self.is_restored(observed);
            (changed && observed.is_active() && wanted.host.broker == brokers).then_some(Action::Reload)
        })
    }

    fn broker_restarts(&self) -> Stage {
        let brokers = self.wanted.iter().filter(|wanted| wanted.host.broker).count();
        self.stage("restart brokers", false, |wanted, observed| {
            let unit = observed.unit("broker");
            let old = unit.old || self.new_package(wanted, observed).is_some() || self.brings_back_a_version(observed);
            let restarts = wanted.programs.contains(&"broker") && unit.active && (old || self.options.restart);
            restarts.then_some(Action::RestartBroker { drain: brokers > 1, rate: self.options.drain_rate })
        })
    }

    fn lb_restarts(&self) -> Stage {
        self.stage("restart load balancers", false, |wanted, observed| {
            let old = ["lb", "vip"].iter().any(|program| observed.unit(program).old);
            let old = old || self.new_package(wanted, observed).is_some() || self.brings_back_a_version(observed);
            let active = observed.unit("lb").active || observed.unit("vip").active;
            let restarts = wanted.host.lb && active && (old || self.options.restart);
            restarts.then_some(Action::RestartLb { always: self.options.restart })
        })
    }

    fn brings_back_a_version(&self, observed: &Observed) -> bool {
        self.options.rollback && observed.previous.is_some() && observed.previous != observed.version
    }
}

#[cfg(test)]
pub(super) mod tests;
