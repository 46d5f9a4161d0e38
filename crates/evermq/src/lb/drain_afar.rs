//! `evermq drain` from where neither the broker nor an lb runs: the broker's host is asked at its endpoint, and where that
//! does not answer, the lb hosts.

use std::process::ExitCode;

use evermq_config::Cluster;
use evermq_config::cluster::Host;
use serde_json::{Value, json};

use super::drain::{DrainArgs, until_empty};
use super::render;
use crate::afar::{Afar, AfarError};
use crate::broker::{Wanted, finish_drain};
use crate::command::CommandError;
use crate::output;

const PATH: &str = "/api/drain";

/// Begins or ends a drain: `by_itself` by the broker, or else `wanted` by the lbs.
///
/// # Errors
/// No host can be asked, none answers, or none would.
pub(super) fn run(
    args: &DrainArgs,
    cluster: &Cluster,
    this: Option<&Host>,
    wanted: Wanted,
    by_itself: Wanted,
) -> Result<ExitCode, CommandError> {
    let mut afar = Afar::new(cluster, this, &args.certificate, args.lb.timeout())?;
    let lbs: Vec<String> = cluster.lbs().map(|host| host.name.to_string()).collect();
    let name = args.name.as_str();
    let look = format!("{PATH}?broker={name}");
    if cluster.brokers().any(|host| host.name.as_str() == name) {
        match afar.post(name, PATH, &by_itself.body(name)) {
            Ok(first) => {
                finish_drain(name, first, wanted.wait, args.lb.json, || Ok(afar.get(name, &look)?))?;
                if wanted.undo {
                    undo_at_lbs(&mut afar, &lbs, name, &look)?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            Err(silence) if silence.is_silence() && wanted.moved => {
                let more = "only the broker can say --moved; without it its lbs move the clients that they have";
                return Err(AfarError::Only { silence: Box::new(silence), more }.into());
            }
            Err(silence) if silence.is_silence() => {
                output::complain(&format!("evermq: {silence}; the lbs are asked in its place"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut answers = Vec::new();
    for (lb, mut answer) in afar.post_to_each(&lbs, PATH, &wanted.body(name))? {
        if wanted.wait {
            answer = until_empty(name, answer, || Ok(afar.get(&lb, &look)?))?;
        }
        if !args.lb.json {
            output::print(&render::backend(&answer))?;
        }
        answers.push(answer);
    }
    if args.lb.json {
        output::print_json(&answers)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The broker serves again; where an lb was told to drain it besides, that ends too. One is enough: it tells the others.
fn undo_at_lbs(afar: &mut Afar, lbs: &[String], name: &str, look: &str) -> Result<(), CommandError> {
    let drains = |answer: Value| answer["state"] == "drain";
    for lb in lbs {
        if afar.get(lb, look).is_ok_and(drains) {
            let answer = afar.post(lb, PATH, &json!({ "broker": name, "state": "ready" }))?;
            output::complain(&render::backend(&answer));
            break;
        }
    }
    Ok(())
}
