//! Looking at the hosts, planning, doing it, and saying what came of it.

use std::net::IpAddr;

use evermq_config::cluster::Host;

use super::carry_out::{Outcome, carry_out};
use super::files::Sources;
use super::observed::Observed;
use super::packages::{Package, newest};
use super::plan::{Options, Wanted, plan, programs_of};
use super::way::Way;
use super::words::{described, programs};
use super::{DeployError, act};
use crate::command::CommandError;
use crate::output;
use crate::remote::ssh::quoted;
use crate::table::Table;

const LOOK: &str = include_str!("look.sh");

/// One run of a command.
pub(super) struct Job<'a> {
    pub(super) way: Way,
    pub(super) sources: &'a Sources,
    /// To choose from; what the hosts have stays where there are none.
    pub(super) packages: Option<Vec<Package>>,
    pub(super) dry_run: bool,
}

impl Job<'_> {
    /// Looks, plans, and does it. Whether anything may have to be verified.
    pub(super) fn run(&self, hosts: &[&Host], options: Options) -> Result<bool, CommandError> {
        let files = hosts.iter().map(|host| match options.rollback {
            true => Ok(Vec::new()),
            false => self.sources.of_host(host),
        });
        let files = files.collect::<Result<Vec<_>, _>>().map_err(DeployError::from)?;
        let mut wanted: Vec<Wanted> = hosts
            .iter()
            .zip(files)
            .map(|(host, files)| Wanted {
                host: (*host).clone(),
                package: None,
                files,
                programs: programs_of(self.sources.cluster(), host),
            })
            .collect();
        let observed = self.look(&wanted)?;
        for (wanted, observed) in wanted.iter_mut().zip(&observed) {
            self.prepare(wanted, observed, options)?;
        }
        let stages = plan(&wanted, &observed, options);
        if stages.is_empty() {
            let what = if options.rollback {
                "there is nothing to bring back on any host"
            } else {
                "the hosts are as the file has them"
            };
            output::print(&format!("{what}: nothing to do\n"))?;
            return Ok(!self.dry_run && !options.rollback);
        }
        if self.dry_run {
            output::print(&described(&stages, &wanted))?;
            return Ok(false);
        }
        let outcome = carry_out(&stages, &wanted, &self.way);
        self.tell(&outcome, &wanted)?;
        Ok(!options.rollback)
    }

    fn look(&self, wanted: &[Wanted]) -> Result<Vec<Observed>, DeployError> {
        let vips: Vec<IpAddr> = self.sources.cluster().vips().collect();
        let vips = &vips;
        std::thread::scope(|scope| {
            let asking: Vec<_> = wanted.iter().map(|wanted| scope.spawn(move || self.look_at(wanted, vips))).collect();
            asking.into_iter().map(|thread| thread.join().expect("looking does not panic")).collect()
        })
    }

    fn look_at(&self, wanted: &Wanted, vips: &[IpAddr]) -> Result<Observed, DeployError> {
        let host = wanted.host.name.to_string();
        let paths: Vec<_> = wanted.files.iter().map(|file| file.path.to_string_lossy()).collect();
        let script = format!("FILES={}\n{}{LOOK}", quoted(&paths.join(" ")), act::VERSION);
        let target = (wanted.host.name.as_str(), wanted.host.address);
        let said = self.way.done(target, "looking", "sh -s", script.as_bytes());
        let said = said.map_err(|error| DeployError::Look { host: host.clone(), error })?;
        let cut_off = || DeployError::Host {
            host,
            what: "did not answer to the end; log in there and see whether `sh -s` works".to_owned(),
        };
        Observed::parse(&said, vips).ok_or_else(cut_off)
    }

    /// Chooses the host's package, and says what is in the way before anything is changed.
    fn prepare(&self, wanted: &mut Wanted, observed: &Observed, options: Options) -> Result<(), DeployError> {
        let refuse = |what: String| Err(DeployError::Host { host: wanted.host.name.to_string(), what });
        if !observed.root {
            return refuse("lets us in as a user who is not root; use --user root, or --sudo".to_owned());
        }
        if !observed.systemd {
            return refuse("has no systemd, which runs the programs; use a host with systemd 239 or later".to_owned());
        }
        match (&self.packages, options.rollback) {
            (Some(packages), false) => {
                let Some(kind) = observed.kind else {
                    return refuse("has none of dpkg, rpm and tar; install tar".to_owned());
                };
                match newest(packages, kind, &observed.machine) {
                    Some(package) => wanted.package = Some(package.clone()),
                    None => {
                        return refuse(format!(
                            "needs a {} for {}, and the directory has none; `make packages` makes it",
                            kind.name(),
                            observed.machine
                        ));
                    }
                }
            }
            _ if observed.version.is_none() => {
                return refuse("has no evermq; name a directory with packages: --packages DIR".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// After the last step: notes, or what failed and what state the hosts are in.
    fn tell(&self, outcome: &Outcome, wanted: &[Wanted]) -> Result<(), CommandError> {
        for note in &outcome.notes {
            output::print(&format!("note: {note}\n"))?;
        }
        if outcome.failures.is_empty() {
            return Ok(());
        }
        output::print(&format!("\nafter the failure:\n{}", self.states(wanted)))?;
        let failed =
            outcome.failures.iter().map(|failure| format!("{}: {}", wanted[failure.host].host.name, failure.error));
        let failed: Vec<String> = failed.collect();
        Err(DeployError::Failed(format!(
            "{}. Mend that and repeat the command, which goes on from there, or `evermq rollback`",
            failed.join("; ")
        ))
        .into())
    }

    fn states(&self, wanted: &[Wanted]) -> Table {
        let vips: Vec<IpAddr> = self.sources.cluster().vips().collect();
        let mut table = Table::titled(&["HOST", "VERSION", "FILES", "PROGRAMS"]);
        for wanted in wanted {
            let name = wanted.host.name.as_str();
            let Ok(observed) = self.look_at(wanted, &vips) else {
                table.row([name, "?", "?", "does not answer"]);
                continue;
            };
            let new =
                wanted.files.iter().filter(|file| observed.digests.get(&file.path) == Some(&file.digest())).count();
            let files = format!("{new} of {} as wanted", wanted.files.len());
            table.row([name, observed.version.as_deref().unwrap_or("-"), &files, &programs(&observed)]);
        }
        table
    }
}
