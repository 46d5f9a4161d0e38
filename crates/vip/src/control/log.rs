//! What is logged of the real-time thread's events: one INFO line for each change of state; WARN for what an operator may
//! have to mend.

use std::io;

use crate::fsm::Reason;
use crate::report::{Event, LinkChange, Trouble, What};
use crate::status::Status;
use crate::track::Effective;

/// Logs `event`, that happened to the virtual routers as `before` knows them.
pub(super) fn log(event: &Event, before: &Status) {
    let Some(instance) = before.instance(event.slot) else { return };
    let (name, interface) = (&instance.name, &instance.interface);
    match &event.what {
        What::Moved(moved) => {
            let reason = before.names().reason(moved.reason);
            let vip = before.vip(event.slot);
            let silent_ms = match moved.reason {
                Reason::MasterSilent { silent, .. } => u64::try_from(silent.as_millis()).ok(),
                _ => None,
            };
            tracing::info!(instance = %name, %vip, from = %moved.from, to = %moved.to, %reason, silent_ms, "VRRP state");
        }
        What::Effective(Effective { priority, cause }) => {
            let reason = before.names().cause(*cause);
            if *priority == instance.effective.priority {
                tracing::debug!(instance = %name, %reason, "effective priority stays");
            } else {
                let (from, to) = (rank(instance.effective.priority), rank(*priority));
                tracing::info!(instance = %name, %from, %to, %reason, "effective priority");
            }
        }
        What::Follows(master) => tracing::debug!(instance = %name, %master, "master heard"),
        What::AddressRestored => tracing::warn!(
            instance = %name,
            interface,
            "someone removed the VIP from the interface; it is back (a network manager that flushes foreign addresses? \
             systemd-networkd: KeepConfiguration=static)"
        ),
        What::Link(LinkChange::Down) => tracing::warn!(instance = %name, interface, "interface is down"),
        What::Link(LinkChange::Up) => tracing::info!(instance = %name, interface, "interface is up again"),
        What::Link(LinkChange::Gone) => tracing::warn!(instance = %name, interface, "interface was removed"),
        What::Link(LinkChange::Back) => {
            tracing::debug!(instance = %name, interface, "an interface of this name is there");
        }
        What::Retired(_) => tracing::info!(instance = %name, "virtual router is gone, as the cluster file says"),
        What::Trouble(trouble) => log_trouble(name, interface, *trouble),
        What::Part(_)
        | What::ReloadAsked
        | What::InForce(_)
        | What::Superseded(_)
        | What::Freed(_)
        | What::GuardLost
        | What::GuardReplaced(_) => {}
    }
}

fn log_trouble(name: &str, interface: &str, trouble: Trouble) {
    let error = io::Error::from_raw_os_error;
    match trouble {
        Trouble::AdvertNotSent(errno) => {
            tracing::warn!(instance = %name, error = %error(errno), "advertisement not sent");
        }
        Trouble::GarpNotSent(errno) => tracing::warn!(instance = %name, error = %error(errno), "announcement not sent"),
        Trouble::Socket(errno) => tracing::warn!(instance = %name, error = %error(errno), "VRRP socket"),
        Trouble::LbForbidden => tracing::warn!(
            "the lb's control socket may not be used, so its health is not known; run evermq-lb and evermq-vip as the same user"
        ),
        Trouble::AddressNotAdded(errno) => tracing::warn!(
            instance = %name,
            interface,
            error = %error(errno),
            "the VIP could not be put up, so this host does not claim it"
        ),
        Trouble::AddressNotRemoved(errno) => tracing::warn!(
            instance = %name,
            interface,
            error = %error(errno),
            "the VIP could not be taken away; remove it with evermq-vip --release"
        ),
        Trouble::Conflict { address, mac } => {
            let mac = mac.map_or_else(|| "unknown".to_owned(), |mac| pnet_base::MacAddr::from(mac).to_string());
            tracing::warn!(instance = %name, %address, mac, "another host claims the VIP");
        }
        Trouble::Discarded { source, error } => {
            let source = source.map_or_else(|| "unknown".to_owned(), |source| source.to_string());
            tracing::warn!(instance = %name, source, reason = %error, "advertisement discarded");
        }
        Trouble::Interval { source, interval } => tracing::warn!(
            instance = %name,
            %source,
            interval_ms = interval.as_millis(),
            "this master's advertisement interval is not this host's; it is followed while it is master"
        ),
    }
}

fn rank(priority: Option<u8>) -> String {
    priority.map_or_else(|| "fault".to_owned(), |priority| priority.to_string())
}
