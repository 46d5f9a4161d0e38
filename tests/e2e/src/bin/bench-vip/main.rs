//! The virtual IP beside keepalived: what each fault of the host that has it costs, in the lab, each run in a fresh one.
//!
//! `bench-vip [RUNS] [WORDS]`: medians of RUNS runs (5), the contenders in turn; only faults whose name holds WORDS.
//!
//! | module | subject |
//! |---|---|
//! | [`contender`] | EverMQ and keepalived, behind the same load balancers and brokers |
//! | [`fault`] | what happens |
//! | [`measure`] | one run |
//! | [`hosts`], [`agent`] | who has the VIP, seen from inside the hosts |
//! | [`figures`] | medians |

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod agent;
mod contender;
mod fault;
mod figures;
mod hosts;
mod measure;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use contender::{CONTENDERS, Contender};
use fault::{FAULTS, Fault};
use figures::spread;
use measure::{Cost, SUBSCRIBERS};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "agent") {
        return agent::run();
    }
    let runs = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(5_usize);
    let wanted = arguments.get(1).cloned().unwrap_or_default();
    print_setting(runs);
    for fault in FAULTS.iter().filter(|fault| fault.name.contains(&wanted)) {
        measure_fault(fault, runs);
    }
    if "cost".contains(&wanted) {
        measure_cost(runs);
    }
    Ok(())
}

fn print_setting(runs: usize) {
    println!("medians of {runs} runs (least to most), in ms; each run in a fresh lab\n");
    for (program, option) in
        [("evermq".to_owned(), "--version"), ("keepalived".to_owned(), "--version"), ("uname".to_owned(), "-srm")]
    {
        let path =
            if program == "evermq" { evermq_e2e::lab::programs().join(&program) } else { program.clone().into() };
        let output = Command::new(path).arg(option).output();
        let text = output.map_or_else(|error| error.to_string(), |output| evermq_e2e::lab::text(&output));
        println!("{program} {option}: {}", text.lines().next().unwrap_or_default());
    }
    println!("cores: {}\n", std::thread::available_parallelism().map_or(0, usize::from));
    for contender in &CONTENDERS {
        match &contender.daemon {
            contender::Daemon::EverMq(settings) => {
                println!("{}: evermq lab up --set {}", contender.name, settings.join(" --set "));
            }
            contender::Daemon::Keepalived { .. } => {
                println!("{}:\n{}", contender.name, contender.keepalived_conf(200).unwrap_or_default());
            }
        }
    }
    println!();
}

/// What all runs of one contender gave; what could not be run is counted and its reason kept.
struct Runs<T> {
    contender: &'static Contender,
    results: Vec<T>,
    failures: Vec<String>,
}

/// Every contender in turn, `runs` times: what disturbs the machine for a while disturbs all.
fn in_turn<T>(runs: impl Fn(&Contender) -> usize, run: impl Fn(&Contender) -> Result<T, String>) -> Vec<Runs<T>> {
    let mut all: Vec<_> =
        CONTENDERS.iter().map(|contender| Runs { contender, results: Vec::new(), failures: Vec::new() }).collect();
    let most = CONTENDERS.iter().map(&runs).max().unwrap_or_default();
    for round in 0..most {
        for Runs { contender, results, failures } in all.iter_mut().filter(|one| round < runs(one.contender)) {
            // A run that goes wrong must not lose those before it; its lab has shown its logs by then.
            match catch_unwind(AssertUnwindSafe(|| run(contender))) {
                Ok(Ok(result)) => results.push(result),
                Ok(Err(said)) => failures.push(said),
                Err(_) => failures.push("see standard error".to_owned()),
            }
        }
    }
    all
}

fn measure_fault(fault: &Fault, runs: usize) {
    println!("{}", row(fault.name, CONTENDERS.iter().map(|contender| contender.name.to_owned())));
    println!("{}", row("---", CONTENDERS.iter().map(|_| "---".to_owned())));
    let outages = in_turn(|_| runs, |contender| measure::new_connections(contender, fault));
    let figure = |name: &str, of: fn(&measure::Outage) -> Option<f64>| {
        let cell = |runs: &Runs<measure::Outage>| cell(runs, of);
        println!("{}", row(name, outages.iter().map(cell)));
    };
    figure("address on the other host after", |outage| outage.moved);
    figure("new connections: longest gap", |outage| Some(outage.gap));
    figure("address on both hosts, in all", |outage| Some(outage.both));
    figure("stale address gone after", |outage| Some(outage.stale));
    let mut said: Vec<_> = outages.iter().flat_map(failures).collect();
    if fault.idle {
        // Who is told by nobody is not told in a second run either, and each takes as long as we wait.
        let told = |contender: &Contender| match contender.daemon {
            contender::Daemon::EverMq(_) => runs,
            contender::Daemon::Keepalived { .. } => runs.min(1),
        };
        let idle = in_turn(told, |contender| measure::idle_subscribers(contender, fault));
        let name = format!("{SUBSCRIBERS} idle subscribers back after the takeover");
        println!("{}", row(&name, idle.iter().map(|runs| cell(runs, |idle| Some(idle.back)))));
        println!("{}", row("of these, heard of it", idle.iter().map(|runs| cell(runs, |idle| Some(idle.closed)))));
        said.extend(idle.iter().flat_map(failures));
    }
    said.iter().for_each(|failure| println!("{failure}"));
    println!();
}

fn measure_cost(runs: usize) {
    println!(
        "{}",
        row("cost of the daemon, all its processes", CONTENDERS.iter().map(|contender| contender.name.to_owned()))
    );
    println!("{}", row("---", CONTENDERS.iter().map(|_| "---".to_owned())));
    let costs = in_turn(|_| runs, measure::cost);
    let figure = |name: &str, host: usize, of: fn(&Cost) -> f64| {
        let spread = |runs: &Runs<[Cost; 2]>| {
            let mut values: Vec<f64> = runs.results.iter().filter_map(|pair| pair.get(host)).map(of).collect();
            values.sort_by(f64::total_cmp);
            match values[..] {
                [] => "-".to_owned(),
                [least, .., most] => format!("{:.2} ({least:.2} to {most:.2})", values[values.len() / 2]),
                [only] => format!("{only:.2}"),
            }
        };
        println!("{}", row(name, costs.iter().map(spread)));
    };
    for (host, name) in ["with the address", "without"].into_iter().enumerate() {
        figure(&format!("{name}: CPU, percent of a core over 10 s"), host, |cost| cost.cpu);
        figure(&format!("{name}: resident, MB"), host, |cost| cost.rss_mb);
        figure(&format!("{name}: proportional, MB"), host, |cost| cost.pss_mb);
    }
    costs.iter().flat_map(failures).for_each(|failure| println!("{failure}"));
    println!();
}

fn cell<T>(runs: &Runs<T>, of: impl Fn(&T) -> Option<f64>) -> String {
    let values: Vec<f64> = runs.results.iter().filter_map(of).collect();
    match values.len() {
        // It never happened, and need not have.
        0 => "-".to_owned(),
        some if some < runs.results.len() => {
            format!("{} in {some} of {}", spread(values, runs.contender.window), runs.results.len())
        }
        _ => spread(values, runs.contender.window),
    }
}

fn failures<T>(runs: &Runs<T>) -> Option<String> {
    let first = runs.failures.first()?;
    let line = first.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Some(format!("{}: {} runs failed: {line}", runs.contender.name, runs.failures.len()))
}

fn row(head: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("| {head} |");
    for cell in cells {
        line.push_str(&format!(" {cell} |"));
    }
    line
}
