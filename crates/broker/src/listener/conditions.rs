//! What holds for those who come, and may be another at any time.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use evermq_config::broker::Broker;
use evermq_daemon::listen::SocketOptions;

/// For connections from now on.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// For everything before a client is in.
    pub connect_timeout: Duration,
    /// Who may be there before that, at one worker.
    pub handshakes: usize,
    /// TCP options.
    pub options: SocketOptions,
    /// How long a broker that stops waits for all.
    pub drain_timeout: Duration,
}

/// The same, as everybody looks at them.
pub type Shared = Arc<ArcSwap<Conditions>>;

impl Conditions {
    /// As the cluster file says, for so many workers.
    #[must_use]
    pub fn new(config: &Broker, workers: usize) -> Self {
        Self {
            connect_timeout: config.connect_timeout,
            handshakes: config.admission.handshakes.div_ceil(workers),
            options: SocketOptions { keepalive: config.tcp_keepalive, user_timeout: config.tcp_user_timeout },
            drain_timeout: config.drain_timeout,
        }
    }

    /// To be looked at.
    #[must_use]
    pub fn shared(self) -> Shared {
        Arc::new(ArcSwap::from_pointee(self))
    }
}
