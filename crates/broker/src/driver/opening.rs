//! What is read before a broker starts: rules and the store.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use evermq_config::broker as config;
use evermq_daemon::tls::Material;
use evermq_store::{Recovered, Settings, WallTime};

use super::Opened;
use crate::auth::Access;
use crate::auth::access::InForce;
use crate::connection::clock;
use crate::journal::Journal;

/// Who gets in, and what they may do.
pub(super) fn access(config: &config::Broker, material: &Material) -> anyhow::Result<Arc<Access>> {
    let (rules, warnings) = InForce::load(config, Arc::clone(material.revocations()))?;
    for warning in &warnings.problems {
        tracing::warn!(%warning, "access");
    }
    Ok(Access::new(rules))
}

/// The store, and what it has. The clocks are read once for both, so that times before the start keep their distance.
#[expect(clippy::disallowed_methods, reason = "what is stored has times that outlive the process")]
pub(super) fn open_store(
    config: &config::Store,
    open: impl FnOnce(&Settings, WallTime) -> Opened,
) -> anyhow::Result<(Arc<Journal>, Recovered)> {
    let now = clock();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = WallTime(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
    let settings = Settings {
        path: config.path.clone(),
        sync: match config.sync {
            config::Sync::Always => evermq_store::Sync::Always,
            config::Sync::Interval(interval) => evermq_store::Sync::Interval(interval),
            config::Sync::Never => evermq_store::Sync::Never,
        },
        segment_size: config.segment_size,
        max_size: config.max_size,
    };
    let (store, recovered) = open(&settings, wall)?;
    let journal = Journal::new(store, now, wall);
    tracing::info!(
        path = %config.path.display(),
        sessions = recovered.sessions.len(),
        messages = recovered.messages.len(),
        retained = recovered.retained.len(),
        milliseconds = clock().saturating_duration_since(now).as_millis(),
        "store opened"
    );
    Ok((journal, recovered))
}
