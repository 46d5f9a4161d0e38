//! `evermq rebalance`: evens out the clients of the brokers now.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::LB;
use crate::afar::Afar;
use crate::asking::ProgramArgs;
use crate::cells::word;
use crate::command::CommandError;
use crate::hosts::CertificateArgs;
use crate::output;

/// `evermq rebalance`
#[derive(Debug, Args)]
#[command(
    after_help = "Each lb evens out its own connections: run it on the host that holds the VIP. From anywhere else all lb hosts are \
                  asked at their endpoints ([admin]), with an admin's certificate. By itself an lb does this too, \
                  lb.rebalance_delay after a broker has come back, where one has lb.rebalance_threshold percent too many; \
                  lb.rebalance_rate = 0 leaves it to this command.\n\n\
                  Exit status: 0 it has begun, or there is nothing to move; 1 the lb does not answer or would not; 2 the command \
                  line or the file is wrong."
)]
pub struct RebalanceArgs {
    /// Clients to move in a second [default: lb.rebalance_rate, or 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    lb: ProgramArgs,
    #[command(flatten)]
    certificate: CertificateArgs,
}

/// Begins to even out.
///
/// # Errors
/// The cluster file is wrong, no lb answers or would, or standard output cannot be written.
pub fn run(args: &RebalanceArgs) -> Result<ExitCode, CommandError> {
    let (cluster, host) = args.lb.load()?;
    if host.as_ref().is_none_or(|host| !(LB.has)(host)) {
        let mut afar = Afar::new(&cluster, host.as_ref(), &args.certificate, args.lb.timeout())?;
        let lbs: Vec<String> = cluster.lbs().map(|host| host.name.to_string()).collect();
        let begun = afar.post_to_each(&lbs, "/api/rebalance", &json!({ "rate": args.rate }))?;
        if args.lb.json {
            output::print_json(&begun.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>())?;
        } else {
            let said = |(lb, answer): &(String, Value)| format!("{lb}:\n{}", text(answer));
            output::print(&begun.iter().map(said).collect::<String>())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let lb = LB.find(&args.lb)?;
    let answer = lb.ask(&json!({ "request": "rebalance", "rate": args.rate }), Duration::ZERO)?;
    if args.lb.json {
        output::print_json(&answer)?;
    } else {
        output::print(&text(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Value) -> String {
    let group = |group: &Value| match group["moves"].as_u64() {
        None | Some(0) => format!("{}: nothing to move\n", word(&group["name"])),
        Some(moves) => {
            let rate = answer["rate"].as_u64().unwrap_or(0);
            let seconds = moves.checked_div(rate).map_or_else(String::new, |seconds| format!(", about {seconds} s"));
            format!("{}: {moves} clients to move, {rate} in a second{seconds}\n", word(&group["name"]))
        }
    };
    answer["groups"].as_array().into_iter().flatten().map(group).collect()
}
