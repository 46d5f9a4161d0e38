//! What a broker asks of its store, asked of `crates/store`, raft-engine and fjall on the disk at hand.
//!
//! `evermq-log-bench [DIRECTORY]`: each candidate and each piece of work in a process of its own, so that CPU time, bytes written and memory are
//! its alone. Prints the tables of `docs/adr/0015-own-store.md`. Everything that is written is removed at the end.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod candidates;
mod meter;
mod record;
mod work;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::candidates::{Candidate, EverMq, Fjall, FjallBatched, RaftEngine, RaftEngineBatched};

/// Writers that each wait until a record is durable before they append the next.
const WRITERS: [usize; 3] = [1, 10, 100];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Made before anything is measured.
    let _ = record::sample(0);
    match &arguments[..] {
        [flag, task, candidate, directory] if flag == "--one" => one(task, candidate, Path::new(directory)),
        [] => all(&std::env::temp_dir()),
        [directory] => all(Path::new(directory)),
        _ => bail!("usage: evermq-log-bench [DIRECTORY]"),
    }
}

const NAMES: [&str; 5] = [EverMq::NAME, RaftEngine::NAME, RaftEngineBatched::NAME, Fjall::NAME, FjallBatched::NAME];

fn all(disk: &Path) -> anyhow::Result<()> {
    println!("records of some {} bytes\n", record::sample(0).len());
    println!("| durable appends, {} | records/s | CPU us/record | written/record |", per_writers());
    println!("|---|---|---|---|");
    for name in NAMES {
        let runs: Vec<_> =
            WRITERS.iter().map(|writers| run(&format!("append-{writers}"), name, disk)).collect::<Result<_, _>>()?;
        let column = |index: usize| runs.iter().map(|run| run[index].clone()).collect::<Vec<_>>().join(" / ");
        println!("| {name} | {} | {} | {} |", column(0), column(1), column(2));
    }
    println!(
        "\n| a million through a window of ten thousand | CPU us/record | written/record | largest on disk | at the end |"
    );
    println!("|---|---|---|---|---|");
    for name in NAMES {
        println!("| {name} | {} |", run("release", name, disk)?.join(" | "));
    }
    println!("\n| reopen of a million | on disk | seconds | CPU s | resident |");
    println!("|---|---|---|---|---|");
    for name in NAMES {
        let directory = tempfile::tempdir_in(disk)?;
        run("fill", name, directory.path())?;
        println!("| {name} | {} |", run("reopen", name, directory.path())?.join(" | "));
    }
    Ok(())
}

fn per_writers() -> String {
    WRITERS.map(|writers| writers.to_string()).join(" / ") + " writers"
}

/// Words that the process for one piece of work prints.
fn run(task: &str, candidate: &str, directory: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(std::env::current_exe()?).args(["--one", task, candidate]).arg(directory).output()?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{candidate}: {task} has failed: {err}");
    Ok(out.trim().split('\t').map(str::to_owned).collect())
}

fn one(task: &str, name: &str, directory: &Path) -> anyhow::Result<()> {
    match name {
        EverMq::NAME => of::<EverMq>(task, directory),
        RaftEngine::NAME => of::<RaftEngine>(task, directory),
        RaftEngineBatched::NAME => of::<RaftEngineBatched>(task, directory),
        Fjall::NAME => of::<Fjall>(task, directory),
        FjallBatched::NAME => of::<FjallBatched>(task, directory),
        other => bail!("no candidate is called {other}"),
    }
}

fn of<C: Candidate>(task: &str, directory: &Path) -> anyhow::Result<()> {
    let own = || tempfile::tempdir_in(directory).context("no directory can be made there");
    let kept = PathBuf::from(directory).join("kept");
    let figures = match task.split_once('-') {
        Some(("append", writers)) => work::append::<C>(own()?.path(), writers.parse()?)?,
        _ => match task {
            "release" => work::release::<C>(own()?.path())?,
            "fill" => work::fill::<C>(&kept)?,
            "reopen" => work::reopen::<C>(&kept)?,
            other => bail!("no work is called {other}"),
        },
    };
    println!("{}", figures.join("\t"));
    Ok(())
}
