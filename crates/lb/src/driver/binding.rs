//! What is bound and set up out of the configuration before anything runs.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use evermq_config::LbConfig;
use evermq_config::lb::Queue;
use evermq_daemon::listen::{self, ListenError, SocketOptions};
use evermq_daemon::tls::Material;
use tokio::sync::mpsc;

use super::StartError;
use crate::admin::Board;
use crate::engine::listener;
use crate::engine::worker::{Front, Settings};
use crate::peers::{self, Exchange};
use crate::pool::Pool;
use crate::routes::Routes;
use crate::tls::TlsSet;
use crate::upgrade::taker::Sockets;

/// A worker's listeners, each with the number of its address.
pub(super) type Listeners = Vec<(u16, std::net::TcpListener)>;

/// Binds every address, once for each worker.
pub(super) fn bind_fronts(
    config: &LbConfig,
    pool: &Pool,
    workers: usize,
    lowest: RawFd,
    given: &mut Sockets,
) -> Result<(Arc<[Front]>, Vec<Listeners>), StartError> {
    let mut listeners: Vec<Listeners> = (0..workers).map(|_| Vec::new()).collect();
    let mut fronts = Vec::new();
    for (number, front) in (0_u16..).zip(&config.lb.listeners) {
        let group = pool.group(&front.group).ok_or_else(|| StartError::Group(front.group.clone()))?;
        let own = given.clients(&front.name, front.address);
        let (address, bound) = listener::bind(front.address, workers, socket_options(config), lowest, own)?;
        // A process with more workers may have given more than one to each: every queue has to be accepted from.
        for (index, listener) in bound.into_iter().enumerate() {
            listeners[index % workers].push((number, listener));
        }
        fronts.push(Front::new(front, address, group));
    }
    Ok((fronts.into(), listeners))
}

/// Where the other lbs connect, if there are any.
pub(super) fn bind_peers(
    config: &LbConfig,
    given: &mut Sockets,
) -> Result<Option<(SocketAddr, Arc<std::net::TcpListener>)>, ListenError> {
    if config.peers.is_empty() {
        return Ok(None);
    }
    let address = config.peer_listen;
    let listener = match given.peers(address) {
        Some(listener) => listener,
        None => listen::tcp(address, false)?,
    };
    Ok(Some((address, Arc::new(listener))))
}

/// The exchange with the other lbs, if there are any.
pub(super) fn make_exchange(
    config: &LbConfig,
    material: &Material,
    board: &Arc<Board>,
    listener: Option<&(SocketAddr, Arc<std::net::TcpListener>)>,
) -> Result<Option<(Exchange, mpsc::Sender<peers::clients::News>)>, StartError> {
    let Some((_, listener)) = listener else { return Ok(None) };
    let listener = listener.try_clone().map_err(StartError::Workers)?;
    Ok(Some(Exchange::new(config, material, socket_options(config), listener, Arc::clone(board))?))
}

pub(crate) fn socket_options(config: &LbConfig) -> SocketOptions {
    SocketOptions { keepalive: config.lb.tcp_keepalive, user_timeout: config.lb.tcp_user_timeout }
}

pub(crate) fn settings(
    config: &LbConfig,
    pool: &Pool,
    workers: usize,
    tls: Option<TlsSet>,
) -> Result<Settings, StartError> {
    let routes = Routes::new(&config.lb.routes, &config.lb.client_ids, |name| pool.group(name));
    Ok(Settings {
        greeting_timeout: config.lb.greeting_timeout,
        connect_timeout: config.lb.connect_timeout,
        idle_timeout: config.lb.idle_timeout,
        // Each worker has its share: clients are spread over them evenly, and nobody has to ask the others.
        handshakes: (config.lb.handshakes.concurrent / workers.max(1)).max(1),
        tls: tls.map(Arc::new),
        socket: socket_options(config),
        // Clients are spread over the workers by the kernel, evenly but for chance.
        queue: Queue { size: config.lb.queue.size.div_ceil(workers.max(1)), ..config.lb.queue },
        accept_proxy_from: config.lb.accept_proxy_from.clone(),
        routes: routes.map_err(StartError::Group)?,
    })
}
