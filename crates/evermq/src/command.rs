//! The command line: every subcommand, errors and exit status.
//!
//! Exit status: 0 done, 1 failed, 2 when the command line or the cluster file is wrong. `evermq status` tells the verdict on
//! the cluster by it: 0 up, 1 degraded, 2 down. `pub` and `sub` have those of [`client`].

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evermq_config::{Report, RoleError};

use crate::afar::AfarError;
use crate::asking::AskError;
use crate::certs::{self, CertsError};
use crate::remote::RemoteError;
use crate::{
    admin, broker, check, client, completion, deploy, events, import, init, lab, lb, man, output, passwd, reload,
    status, store, upgrade,
};

/// MQTT that stays up: the operator's command
#[derive(Debug, Parser)]
#[command(name = "evermq", version = evermq_daemon::command::VERSION, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the first cluster file: out of answers, options or an Ansible inventory
    Init(init::InitArgs),
    /// Write a cluster file out of mosquitto.conf, keepalived.conf and nginx.conf, and tell what became of each line
    Import(import::ImportArgs),
    /// Check the cluster file and its certificates; shows every problem at once
    Check(check::CheckArgs),
    /// Make and show certificates: authority, hosts, clients
    Certs(certs::CertsArgs),
    /// Set or remove a user's password in a broker's password file
    Passwd(passwd::PasswdArgs),
    /// Make the hosts as the cluster file has them: packages, files, programs, over ssh
    Deploy(deploy::DeployArgs),
    /// Bring back what the hosts had before the last deploy
    Rollback(deploy::RollbackArgs),
    /// Make this host as the cluster file has it, without ssh
    Install(deploy::InstallArgs),
    /// Show how the cluster is, host by host
    Status(status::StatusArgs),
    /// Show what has changed on all hosts lately: when, why, and how long something was away
    Events(events::EventsArgs),
    /// Show what the programs of all hosts say, in one stream
    Logs(events::LogsArgs),
    /// Serve status, events, figures and the web page of this host ([admin] of the cluster file)
    Admin(admin::AdminArgs),
    /// Have the programs of this host read the changed cluster file
    Reload(reload::ReloadArgs),
    /// Have the new version of a program take over from the one that runs
    Upgrade(upgrade::UpgradeArgs),
    /// Show who is connected to a load balancer, or close connections
    Connections(lb::ConnectionsArgs),
    /// Show or set a broker's weight and state on the load balancers
    Backend(lb::BackendArgs),
    /// Move a broker's clients to the others, so that it can be stopped
    Drain(lb::DrainArgs),
    /// Even out the clients of the brokers now
    Rebalance(lb::RebalanceArgs),
    /// Show who is connected to a broker
    Clients(broker::ClientsArgs),
    /// Show the sessions of a broker, also of clients that are away
    Sessions(broker::SessionsArgs),
    /// Show who has subscribed to what, or who would get a message
    Subscriptions(broker::SubscriptionsArgs),
    /// Show the retained messages of a broker, or delete one
    Retained(broker::RetainedArgs),
    /// Close a client's connection, and end its session if told so
    Kick(broker::KickArgs),
    /// Follow one client's packets as they come and go
    Trace(broker::TraceArgs),
    /// Check or show what a broker keeps on disk: sessions, messages that wait, retained messages
    Store(store::StoreArgs),
    /// Publish messages; the flags are those of mosquitto_pub
    // `-h` is the host, as it is there.
    #[command(disable_help_flag = true)]
    Pub(client::PubArgs),
    /// Subscribe and print what comes; the flags are those of mosquitto_sub
    #[command(disable_help_flag = true)]
    Sub(client::SubArgs),
    /// Run the whole stack on this machine: two load balancers, two brokers and a client host, each in namespaces of its own
    Lab(lab::LabArgs),
    /// Print the completion script of a shell
    Completion(completion::CompletionArgs),
    /// Print a manual page, or write all of them into a directory
    Man(man::ManArgs),
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The cluster file is wrong.
    #[error(transparent)]
    Config(#[from] Report),
    /// The host is not in the cluster file.
    #[error(transparent)]
    Host(#[from] RoleError),
    /// Certificates.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// A new cluster file.
    #[error(transparent)]
    Init(#[from] init::InitError),
    /// Files of mosquitto, keepalived and nginx.
    #[error(transparent)]
    Import(#[from] import::ImportError),
    /// A password file.
    #[error(transparent)]
    Passwd(#[from] passwd::PasswdError),
    /// A program of a host.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A program of a host that is asked at its endpoint.
    #[error(transparent)]
    Afar(#[from] AfarError),
    /// A broker's store.
    #[error(transparent)]
    Store(#[from] evermq_store::StoreError),
    /// Manual pages.
    #[error(transparent)]
    Man(#[from] man::ManError),
    /// Making hosts as the cluster file has them.
    #[error(transparent)]
    Deploy(#[from] deploy::DeployError),
    /// Another host.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The certificate to show to other hosts.
    #[error(transparent)]
    Tls(#[from] evermq_daemon::tls::TlsError),
    /// The endpoint.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

/// Reads the command line and does what it asks for.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&text_of(&error));
            ExitCode::from(error.exit_status())
        }
    }
}

fn run(command: Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Init(args) => init::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Passwd(args) => passwd::run(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Rollback(args) => deploy::run_rollback(&args),
        Command::Install(args) => deploy::run_install(&args),
        Command::Status(args) => status::run(&args),
        Command::Events(args) => events::run_events(&args),
        Command::Logs(args) => events::run_logs(&args),
        Command::Admin(args) => admin::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Connections(args) => lb::run_connections(&args),
        Command::Backend(args) => lb::run_backend(&args),
        Command::Drain(args) => lb::run_drain(&args),
        Command::Rebalance(args) => lb::run_rebalance(&args),
        Command::Clients(args) => broker::run_clients(&args),
        Command::Sessions(args) => broker::run_sessions(&args),
        Command::Subscriptions(args) => broker::run_subscriptions(&args),
        Command::Retained(args) => broker::run_retained(&args),
        Command::Kick(args) => broker::run_kick(&args),
        Command::Trace(args) => broker::run_trace(&args),
        Command::Store(args) => store::run(&args),
        Command::Pub(args) => Ok(client::run_pub(args)),
        Command::Sub(args) => Ok(client::run_sub(args)),
        Command::Lab(args) => Ok(lab::run(args)),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

impl CommandError {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Host(_) => 2,
            Self::Certs(error) if error.is_usage() => 2,
            Self::Passwd(error) if error.is_usage() => 2,
            Self::Man(error) if error.is_usage() => 2,
            Self::Init(error) if error.is_usage() => 2,
            Self::Deploy(error) if error.is_usage() => 2,
            Self::Init(_)
            | Self::Import(_)
            | Self::Remote(_)
            | Self::Deploy(_)
            | Self::Certs(_)
            | Self::Passwd(_)
            | Self::Ask(_)
            | Self::Afar(_)
            | Self::Store(_)
            | Self::Man(_)
            | Self::Tls(_)
            | Self::Admin(_)
            | Self::Output(_) => 1,
        }
    }
}

/// The error with its causes. A report names files and lines itself.
fn text_of(error: &CommandError) -> String {
    if let CommandError::Config(report) = error {
        return report.to_string();
    }
    let mut text = format!("evermq: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_says_what_it_does() {
        fn visit(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {} has no description", argument.get_id());
            }
            for sub in command.get_subcommands() {
                visit(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        visit(&Cli::command(), "evermq");
    }
}
