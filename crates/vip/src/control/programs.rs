//! The notify programs of every virtual router and sync group.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evermq_config::VipConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::account::AccountError;
use crate::fsm::{State, Transition};
use crate::programs::queue::{News, Told};
use crate::programs::{Facts, Programs, Scope};
use crate::status::{InstanceStatus, Status};

/// For the programs that are told of the end, when this program stops: its own stop must not take longer.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Tells notify programs.
#[derive(Debug)]
pub(super) struct Notifier {
    config: watch::Receiver<VipConfig>,
    told: Mutex<Everyone>,
}

#[derive(Debug, Default)]
struct Everyone {
    list: Vec<One>,
    running: JoinSet<()>,
}

#[derive(Debug)]
struct One {
    scope: Scope,
    name: String,
    programs: Arc<Programs>,
    /// What it was told last.
    last: Option<Told>,
}

/// The programs of every virtual router and sync group of a configuration.
///
/// # Errors
/// They have to run as a user who is missing, or whom evermq-vip may not become.
pub(crate) fn all(config: &VipConfig, interface: impl Fn(&str) -> String) -> Result<Vec<Programs>, AccountError> {
    let written = |routers: Vec<&evermq_config::roles::VipInstance>| {
        let addresses = routers.iter().flat_map(|router| &router.addresses).map(ToString::to_string);
        addresses.collect::<Vec<_>>().join(",")
    };
    let mut facts = Vec::new();
    for router in &config.instances {
        facts.push(Facts {
            scope: Scope::Instance,
            name: router.name.clone(),
            vip: written(vec![router]),
            interface: interface(&router.name),
            host: config.host.to_string(),
        });
    }
    let mut groups: Vec<&String> = config.instances.iter().filter_map(|router| router.sync_group.as_ref()).collect();
    groups.sort();
    groups.dedup();
    for group in groups {
        let members: Vec<_> =
            config.instances.iter().filter(|router| router.sync_group.as_ref() == Some(group)).collect();
        let interfaces: Vec<_> = members.iter().map(|router| interface(&router.name)).collect();
        facts.push(Facts {
            scope: Scope::Group,
            name: group.clone(),
            vip: written(members),
            interface: interfaces.join(","),
            host: config.host.to_string(),
        });
    }
    facts.into_iter().map(|facts| Programs::new(&config.vip.notify, facts)).collect()
}

impl Notifier {
    /// For the configuration that is in force.
    pub(super) fn new(config: watch::Receiver<VipConfig>) -> Self {
        Self { config, told: Mutex::default() }
    }

    /// Follows the configuration, for ever.
    pub(super) async fn run(&self) -> Infallible {
        let mut config = self.config.clone();
        while config.changed().await.is_ok() {
            // Those of before end when they have told what they had to.
            self.lock().list.drain(..).for_each(|one| one.programs.close());
        }
        std::future::pending().await
    }

    /// The virtual router of `slot` has moved, as `status` knows by now.
    pub(super) fn moved(&self, status: &Status, slot: usize, transition: &Transition) {
        let Some(instance) = status.instance(slot) else { return };
        let news = News {
            state: Told::of(transition),
            priority: instance.effective.priority.unwrap_or(0),
            reason: status.names().reason(transition.reason),
        };
        let mut everyone = self.lock();
        if everyone.list.is_empty() {
            self.fill(&mut everyone, status);
        }
        everyone.tell(Scope::Instance, &instance.name, news.clone());
        if let Some(group) = &instance.router.sync_group {
            let members = status.instances().filter(|member| member.router.sync_group.as_ref() == Some(group));
            let state = standing(members, news.state);
            everyone.tell(Scope::Group, group, News { state, ..news });
        }
    }

    /// Waits, for a bounded time, until everybody knows of the end.
    pub(super) async fn finish(&self) {
        let mut running = {
            let mut everyone = self.lock();
            everyone.list.iter().for_each(|one| one.programs.close());
            std::mem::take(&mut everyone.running)
        };
        let ended = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
            tracing::warn!("a notify program still runs at the end of evermq-vip and is killed");
        }
    }

    fn fill(&self, everyone: &mut Everyone, status: &Status) {
        let interface = |name: &str| {
            let found = status.instances().find(|instance| instance.name == name);
            found.map(|instance| instance.interface.clone()).unwrap_or_default()
        };
        match all(&self.config.borrow(), interface) {
            Ok(programs) => {
                while everyone.running.try_join_next().is_some() {}
                for programs in programs {
                    let programs = Arc::new(programs);
                    let run = Arc::clone(&programs);
                    everyone.running.spawn(async move { run.run().await });
                    let Facts { scope, name, .. } = programs.facts();
                    everyone.list.push(One { scope: *scope, name: name.clone(), programs, last: None });
                }
            }
            // It was permitted when the configuration was judged.
            Err(error) => tracing::error!(%error, "notify programs cannot be run"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Everyone> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Everyone {
    /// A group that is told the same again has not moved.
    fn tell(&mut self, scope: Scope, name: &str, news: News) {
        let Some(one) = self.list.iter_mut().find(|one| one.scope == scope && one.name == name) else { return };
        if scope == Scope::Instance || one.last != Some(news.state) {
            one.last = Some(news.state);
            one.programs.announce(news);
        }
    }
}

/// What a group is: master if all are, at fault if one is, and backup otherwise.
fn standing<'a>(members: impl Iterator<Item = &'a InstanceStatus>, news: Told) -> Told {
    let states: Vec<State> = members.map(|member| member.state).collect();
    if states.contains(&State::Initialize) {
        return if news == Told::Stop { Told::Stop } else { Told::Fault };
    }
    if states.iter().all(|state| *state == State::Master) { Told::Master } else { Told::Backup }
}
