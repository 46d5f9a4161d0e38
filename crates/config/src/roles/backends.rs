//! What `evermq-lb` on one host balances over.

use std::net::SocketAddr;

use super::{BackendConfig, for_host};
use crate::cluster::{Cluster, Host};
use crate::lb::{self, Lb};

impl Cluster {
    /// `[lb]` with the host's name in its paths.
    pub(super) fn lb_of(&self, me: &Host) -> Lb {
        let mut lb = self.lb.clone();
        for files in &mut lb.tls.certificates {
            files.cert = for_host(&files.cert, &me.name);
            files.key = for_host(&files.key, &me.name);
        }
        lb
    }

    pub(super) fn backends(&self) -> Vec<BackendConfig> {
        let own = self.brokers().map(|host| {
            let address = SocketAddr::from((host.address, self.broker.listen.port()));
            let plain = self.broker.listen_proxy.map(|proxy| SocketAddr::from((host.address, proxy.port())));
            let backend = BackendConfig {
                send_proxy: self.lb.send_proxy,
                ..BackendConfig::of_cluster(host.name.clone(), address, plain)
            };
            match self.lb.backends.iter().find(|settings| settings.name == backend.name) {
                None => backend,
                Some(settings) => BackendConfig {
                    group: settings.group.clone(),
                    weight: settings.weight,
                    backup: settings.backup,
                    max_connections: settings.max_connections,
                    probe: settings.probe,
                    send_proxy: backend.send_proxy && settings.send_proxy,
                    ..backend
                },
            }
        });
        own.chain(self.lb.backends.iter().filter(|backend| is_foreign(backend)).map(|backend| BackendConfig {
            name: backend.name.clone(),
            host: None,
            address: backend.address,
            plain_address: backend.plain_address,
            send_proxy: backend.send_proxy,
            send_proxy_plain: backend.send_proxy,
            group: backend.group.clone(),
            weight: backend.weight,
            backup: backend.backup,
            max_connections: backend.max_connections,
            probe: backend.probe,
        }))
        .collect()
    }
}

/// A broker that is not of the cluster has an address of its own.
const fn is_foreign(backend: &lb::Backend) -> bool {
    backend.address.is_some() || backend.plain_address.is_some()
}
