//! Places: how many connections there may be, in all, of a listener, of an address, of a user, and of strangers.
//!
//! | limit | who is over it |
//! |---|---|
//! | `max_connections` | is closed without a word: nothing is known of the other side (§4.13) |
//! | a listener's `max_connections` | likewise |
//! | `max_connections_per_address` | likewise |
//! | `max_connections_per_user` | gets CONNACK 0x97, or 3 in MQTT 3.1.1 |
//! | `max_handshakes` | waits in the kernel's backlog; see [`strangers`] |
//!
//! | module | subject |
//! |---|---|
//! | [`table`] | counts by key, given back when dropped |
//! | [`strangers`] | those who have not got in |
//! | [`notice`] | one log line for many refusals |

pub mod notice;
pub mod strangers;
pub mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use evermq_config::broker::Admission;
use parking_lot::Mutex;

use self::notice::Notice;
use self::table::{Quota, Table};
use crate::auth::Client;
use crate::broker::{Broker, Place};
use crate::counters::Counters;
use crate::proxy::LoadBalancers;

/// Which limit a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Of the broker.
    #[error("broker.max_connections are connected")]
    Broker,
    /// Of the listener.
    #[error("the listener's max_connections are connected through it")]
    Listener,
    /// Of the address.
    #[error("its address has broker.max_connections_per_address")]
    Address,
    /// Of the user.
    #[error("its user has broker.max_connections_per_user")]
    User,
}

/// The limits, and how far they are used up.
#[derive(Debug)]
pub struct Places {
    limits: Mutex<Admission>,
    /// Those who stand for many clients: only what they say of each counts.
    lbs: LoadBalancers,
    addresses: Table<Source>,
    users: Table<Arc<str>>,
    notices: [Notice; 4],
    tls_failures: Notice,
}

/// Whose connections count together: an address of IPv4, or a /64 of IPv6, of which anybody may have as many as he likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(u64);

/// What a connection takes up, until it is dropped.
pub struct Held {
    /// Where there are other limits; as a rule there are none, and there are many connections.
    quotas: Option<Box<Quotas>>,
    /// Among all. The last to go: who is not counted any more has left everything else too.
    pub place: Place,
}

/// Each counts until it is dropped.
#[derive(Debug, Default)]
struct Quotas {
    listener: Option<Quota<()>>,
    address: Option<Quota<Source>>,
    user: Option<Quota<Arc<str>>>,
}

impl Source {
    /// Of an address; IPv4 in either spelling is the same.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // As if from ::/32, of which no host has an address (RFC 4291 §2.4: the rest of ::/8 is reserved).
            IpAddr::V4(address) => Self(address.to_bits().into()),
            IpAddr::V6(address) => Self(u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX)),
        }
    }
}

impl Places {
    /// Nobody has come.
    #[must_use]
    pub fn new(limits: Admission, lbs: LoadBalancers) -> Arc<Self> {
        Arc::new(Self {
            limits: Mutex::new(limits),
            lbs,
            addresses: Table::default(),
            users: Table::default(),
            notices: Default::default(),
            tls_failures: Notice::default(),
        })
    }

    /// Other limits, for those who come from now on.
    pub fn set_limits(&self, limits: Admission) {
        *self.limits.lock() = limits;
    }

    /// Most connections at once.
    #[must_use]
    pub fn most(&self) -> usize {
        self.limits.lock().connections
    }

    /// A place for a connection that has come in at a listener.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, broker: &Arc<Broker>, listener: Option<&ListenerPlaces>) -> Result<Held, Full> {
        let place = broker.place(self.limits.lock().connections).ok_or(Full::Broker)?;
        let mut held = Held { place, quotas: None };
        if let Some(listener) = listener {
            held.quotas().listener = Some(listener.table.take((), listener.most).ok_or(Full::Listener)?);
        }
        Ok(held)
    }

    /// Counts it for its own address, behind a load balancer too.
    ///
    /// # Errors
    /// The address has as many as it may.
    pub fn take_address(&self, held: &mut Held, address: IpAddr) -> Result<(), Full> {
        let most = self.limits.lock().per_address;
        if let Some(most) = most
            && held.quotas.as_ref().is_none_or(|quotas| quotas.address.is_none())
            && !self.lbs.is_one(address)
        {
            held.quotas().address = Some(self.addresses.take(Source::of(address), most).ok_or(Full::Address)?);
        }
        Ok(())
    }

    /// Whose connections count together with this client's; none for the lbs, who stand for many clients, and for who comes
    /// through a Unix socket.
    #[must_use]
    pub fn source(&self, client: &Client) -> Option<Source> {
        let address = client.address.ip();
        (!client.is_unix && !self.lbs.is_one(address)).then(|| Source::of(address))
    }

    /// Counts it for its user. `replaces`: whether it takes the place of a connection that counts for that user.
    ///
    /// # Errors
    /// The user has as many as he may.
    pub fn take_user(&self, held: &mut Held, user: &str, replaces: impl FnOnce() -> bool) -> Result<(), Full> {
        let Some(most) = self.limits.lock().per_user else { return Ok(()) };
        let quota = match self.users.take(Arc::from(user), most) {
            Some(quota) => quota,
            // [MQTT-3.1.4-3]: the client comes back before its old connection is found dead, and that one goes for it.
            None if replaces() => self.users.take(Arc::from(user), usize::MAX).ok_or(Full::User)?,
            None => return Err(Full::User),
        };
        held.quotas().user = Some(quota);
        Ok(())
    }

    /// Says where operators look that TLS fails, if it has not been said lately: a device with a bad certificate is otherwise
    /// one that does not come.
    pub fn tls_failed(&self, address: SocketAddr, listener: &str, error: &std::io::Error, now: Instant) {
        if let Some(times) = self.tls_failures.count(now) {
            tracing::info!(
                %address, listener, %error, times,
                "TLS with a client failed: it shows no certificate of a CA in tls.ca, or does not take this host's; said once a minute at \
                 most, all are told at level debug"
            );
        }
    }

    /// Counts a refusal, and says it if it has not been said lately.
    pub fn refused(&self, full: Full, counters: &Counters, now: Instant) {
        let (counter, notice) = match full {
            Full::Broker => (&counters.refused_connections, &self.notices[0]),
            Full::Listener => (&counters.refused_listener, &self.notices[1]),
            Full::Address => (&counters.refused_address, &self.notices[2]),
            Full::User => (&counters.refused_user, &self.notices[3]),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(refused) = notice.count(now) {
            tracing::warn!(reason = %full, refused, "connections are refused; said once a minute at most");
        }
    }
}

impl Held {
    fn quotas(&mut self) -> &mut Quotas {
        self.quotas.get_or_insert_default()
    }
}

/// Those of one listener.
#[derive(Debug)]
pub struct ListenerPlaces {
    table: Table<()>,
    most: usize,
}

impl ListenerPlaces {
    /// So many at once.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { table: Table::default(), most }
    }
}

#[cfg(test)]
mod tests;
