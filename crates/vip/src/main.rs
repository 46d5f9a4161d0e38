//! `evermq-vip`: holds the cluster's virtual IP.

use std::process::ExitCode;

use evermq_config::Cluster;

fn main() -> ExitCode {
    evermq_daemon::command::main(
        "evermq-vip",
        "Holds the cluster's virtual IP by VRRP (RFC 9568): one host at a time, another one within a few advertisements.",
        Cluster::vip_for,
        |config, args: evermq_vip::ReleaseArgs| evermq_vip::run(config, &args),
    )
}
