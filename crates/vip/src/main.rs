//! `evermq-vip`: holds the cluster's virtual IP.

use std::process::ExitCode;

use evermq_config::Cluster;
use evermq_vip::guard::process;

fn main() -> ExitCode {
    // The daemon starts itself a second time as its guard, which reads no file and no other option.
    if std::env::args_os().nth(1).is_some_and(|first| first == process::ARGUMENT) {
        return process::main();
    }
    evermq_daemon::command::main(
        "evermq-vip",
        "Holds the cluster's virtual IP by VRRP (RFC 9568): one host at a time, another one within a few advertisements.",
        Cluster::vip_for,
        evermq_vip::run,
    )
}
