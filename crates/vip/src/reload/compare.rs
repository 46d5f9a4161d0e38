//! What another configuration means: nothing, a reload, or a restart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use evermq_config::VipConfig;
use evermq_config::roles::VipInstance;

/// What cannot change while the program runs.
///
/// # Errors
/// Each such setting, with what to do.
pub(super) fn refusals(old: &VipConfig, new: &VipConfig) -> Result<(), String> {
    let changed = [
        ("this host's name", old.host != new.host),
        ("this host's address", old.address != new.address),
        ("cluster.run_dir", (&old.control_socket, &old.lb_socket) != (&new.control_socket, &new.lb_socket)),
        ("vip.mode", old.vip.mode != new.vip.mode),
        ("vip.realtime", old.vip.realtime != new.vip.realtime),
        ("vip.metrics", old.vip.metrics != new.vip.metrics),
        ("vip.virtual_mac", old.vip.virtual_mac != new.vip.virtual_mac),
        ("vip.accept", old.vip.accept != new.vip.accept),
        ("vip.tickle", old.vip.tickle != new.vip.tickle),
        ("vip.quorum", old.quorum.is_some() != new.quorum.is_some()),
        ("vip.heartbeat_port", own_vote(old) != own_vote(new)),
        ("vip.quorum_gateway", gateway(old) != gateway(new)),
    ];
    let named: Vec<_> = changed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
    if named.is_empty() {
        return Ok(());
    }
    Err(format!("{} cannot change while evermq-vip runs; restart it", named.join(", ")))
}

/// Where this host listens for votes.
fn own_vote(config: &VipConfig) -> Option<SocketAddr> {
    let quorum = config.quorum.as_ref()?;
    quorum.voters.iter().find(|voter| voter.name == quorum.host).map(|voter| voter.address)
}

fn gateway(config: &VipConfig) -> Option<Ipv4Addr> {
    config.quorum.as_ref()?.gateway
}

/// Whether there is nothing to do.
pub(super) fn is_same(old: &VipConfig, new: &VipConfig) -> bool {
    (&old.instances, &old.tracks, &old.vip, &old.quorum) == (&new.instances, &new.tracks, &new.vip, &new.quorum)
}

/// Whether `new` is the same virtual router as `old`, be it with other settings.
pub(super) fn is_same_router(old: &VipInstance, new: &VipInstance) -> bool {
    let family = |router: &VipInstance| router.addresses.first().is_some_and(IpAddr::is_ipv6);
    (&old.name, old.vrid, &old.interface, family(old)) == (&new.name, new.vrid, &new.interface, family(new))
}
