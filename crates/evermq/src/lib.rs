//! The operator's command.
//!
//! | module | subject |
//! |---|---|
//! | [`command`] | the command line, errors, exit status |
//! | [`config_file`] | `--config` and `--host` |
//! | [`init`] | `evermq init`: the first cluster file |
//! | [`import`] | `evermq import`: the cluster file out of those of mosquitto, keepalived and nginx |
//! | [`check`] | `evermq check`: the cluster file and its certificates |
//! | [`deploy`] | `evermq deploy`, `rollback`, `install`: the hosts as the cluster file has them |
//! | [`survey`] | `evermq check --hosts`: what is in the way on the hosts |
//! | [`remote`] | other hosts, over ssh |
//! | [`certs`] | `evermq certs`: authority, hosts, clients |
//! | [`status`] | `evermq status`: how the cluster is, or the programs of this host |
//! | [`events`] | `evermq events` and `evermq logs`: what has happened |
//! | [`admin`] | `evermq admin`: the endpoint of this host |
//! | [`hosts`] | asking all hosts |
//! | [`afar`] | having something done by another host |
//! | [`passwd`] | `evermq passwd`: a broker's password file |
//! | [`reload`] | `evermq reload`: have them read the changed file |
//! | [`upgrade`] | `evermq upgrade`: the new version takes over from the one that runs |
//! | [`lb`] | `evermq connections`, `backend`, `drain`, `rebalance`: what an lb does |
//! | [`store`] | `evermq store`: what a broker keeps on disk |
//! | [`broker`] | `evermq clients`, `sessions`, `subscriptions`, `retained`, `kick`, `trace`: what a broker has |
//! | [`asking`] | a program's control socket |
//! | [`client`] | `evermq pub` and `evermq sub` |
//! | [`lab`] | `evermq lab`: the whole stack on one machine |
//! | [`completion`], [`man`] | shell completion, manual pages |
//! | [`output`], [`table`], [`cells`] | standard output, aligned columns, values in them |

pub mod admin;
pub mod afar;
pub mod asking;
pub mod broker;
pub mod cells;
pub mod certs;
pub mod check;
pub mod client;
pub mod command;
pub mod completion;
pub mod config_file;
pub mod deploy;
pub mod events;
pub mod hosts;
pub mod import;
pub mod init;
pub mod lab;
pub mod lb;
pub mod man;
pub mod output;
pub mod passwd;
pub mod reload;
pub mod remote;
pub mod status;
pub mod store;
pub mod survey;
pub mod table;
pub mod upgrade;
