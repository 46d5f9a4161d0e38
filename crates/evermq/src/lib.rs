//! The operator's command.
//!
//! | module | subject |
//! |---|---|
//! | [`command`] | the command line, errors, exit status |
//! | [`config_file`] | `--config` and `--host` |
//! | [`check`] | `evermq check`: the cluster file and its certificates |
//! | [`certs`] | `evermq certs`: authority, hosts, clients |
//! | [`status`] | `evermq status`: how the programs of this host are |
//! | [`reload`] | `evermq reload`: have them read the changed file |
//! | [`upgrade`] | `evermq upgrade`: the new version takes over from the one that runs |
//! | [`lb`] | `evermq connections`, `backend`, `drain`: what an lb does |
//! | [`client`] | `evermq pub` and `evermq sub` |
//! | [`lab`] | `evermq lab`: the whole stack on one machine |
//! | [`completion`], [`man`] | shell completion, manual pages |
//! | [`output`], [`table`] | standard output, aligned columns |

pub mod certs;
pub mod check;
pub mod client;
pub mod command;
pub mod completion;
pub mod config_file;
pub mod lab;
pub mod lb;
pub mod man;
pub mod output;
pub mod reload;
pub mod status;
pub mod table;
pub mod upgrade;
