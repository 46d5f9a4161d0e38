//! `evermq-lb`: passes MQTT clients on to the brokers.

use std::process::ExitCode;

use evermq_daemon::command;

fn main() -> ExitCode {
    command::main(
        "evermq-lb",
        "Load balancer for long-lived MQTT connections: TLS passes through to the brokers",
        evermq_config::Cluster::lb_for,
        evermq_lb::run,
    )
}
