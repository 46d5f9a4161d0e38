//! Plans and hosts in words.

use super::observed::{Observed, PROGRAMS};
use super::plan::{Action, Stage, Wanted};
use crate::table::Table;

/// What runs on a host.
pub(super) fn programs(observed: &Observed) -> String {
    let shown = PROGRAMS.iter().filter_map(|program| {
        let unit = observed.units.get(*program).filter(|unit| unit.active || unit.enabled)?;
        let state = match (unit.active, unit.old) {
            (true, true) => "runs, old version",
            (true, false) => "runs",
            (false, _) => "STOPPED",
        };
        Some(format!("{program}: {state}"))
    });
    let shown: Vec<String> = shown.collect();
    let vip = if observed.holds_vip { ", has the VIP" } else { "" };
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") + vip }
}

/// A plan in words.
pub(super) fn described(stages: &[Stage], wanted: &[Wanted]) -> String {
    let mut text = String::new();
    for stage in stages {
        let how = if stage.at_once { "all at once" } else { "one after the other" };
        text += &format!("{} ({how}):\n", stage.title);
        let mut table = Table::indented(2);
        for (host, action) in &stage.steps {
            table.row([wanted[*host].host.name.as_str(), &in_words(action)]);
        }
        text += &table.to_string();
    }
    text
}

fn in_words(action: &Action) -> String {
    match action {
        Action::Keep => "keep version and files for `evermq rollback`".to_owned(),
        Action::Install(package) => {
            format!("install {}", package.path.file_name().unwrap_or_default().to_string_lossy())
        }
        Action::Write(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("write {}", paths.join(" "))
        }
        Action::Unwrite { .. } => "bring back the files of before".to_owned(),
        Action::Restore => "bring back version and files".to_owned(),
        Action::Check => "evermq check".to_owned(),
        Action::Start(programs) => format!("enable and start evermq-{}", programs.join(", evermq-")),
        Action::Reload => "evermq reload".to_owned(),
        Action::RestartBroker { drain: true, .. } => "drain, then restart evermq-broker".to_owned(),
        Action::RestartBroker { drain: false, .. } => "restart evermq-broker, the only one".to_owned(),
        Action::RestartLb { .. } => "hand over evermq-lb, restart evermq-vip".to_owned(),
    }
}
