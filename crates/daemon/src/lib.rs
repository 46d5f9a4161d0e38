//! What every EverMQ program shares, so that a daemon's `main.rs` reads as its steps.
//!
//! | module | subject |
//! |---|---|
//! | [`command`] | command line, config, exit status |
//! | [`log`] | log lines as the cluster file asks |
//! | `journal` | lines with fields, for journald |
//! | [`events`] | the last lines of it, for who asks |
//! | [`process`] | version, open files, memory |
//! | [`shutdown`] | SIGTERM and SIGINT |
//! | [`notify`] | readiness and signs of life for systemd |
//! | [`pulse`] | whether all threads turn, so that there may be one |
//! | [`kept`] | listening sockets that outlive the process |
//! | [`workers`] | one thread with one runtime for each core |
//! | [`listen`] | listening sockets and TCP options |
//! | [`limits`] | open files |
//! | [`eviction`] | who has to make room for others |
//! | [`proxy_protocol`] | who a client behind a proxy is |
//! | [`tls`] | certificates of this host, who the other side is |
//! | [`secret`] | secrets that hosts share |
//! | [`health`] | what a program says of itself |
//! | [`control`] | the Unix socket where it says so |
//! | [`metrics`] | figures for Prometheus |
//! | [`cluster_topics`] | what brokers and lbs tell each other over MQTT |

pub mod cluster_topics;
pub mod command;
pub mod control;
pub mod events;
pub mod eviction;
pub mod health;
mod journal;
pub mod kept;
pub mod limits;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod process;
pub mod proxy_protocol;
pub mod pulse;
pub mod secret;
pub mod shutdown;
pub mod tls;
pub mod workers;
