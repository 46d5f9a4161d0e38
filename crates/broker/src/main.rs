//! The broker's program: command line and logs come from `evermq-daemon`, everything else is the library's.

use std::process::ExitCode;

use evermq_config::Cluster;
use evermq_daemon::command::{self, NoArgs};

fn main() -> ExitCode {
    command::main(
        "evermq-broker",
        "MQTT 3.1.1 and 5.0 broker with mutual TLS",
        Cluster::broker_for,
        |config, NoArgs {}, source| evermq_broker::run(config, source),
    )
}
