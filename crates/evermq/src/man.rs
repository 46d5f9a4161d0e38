//! `evermq man`: manual pages, made from the command line's own descriptions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::command::{Cli, CommandError};
use crate::output;

/// `evermq man [COMMAND...] [--dir DIR]`
#[derive(Debug, Args)]
#[command(after_help = "evermq man certs init | man -l -\nevermq man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The command whose page to print, such as `certs init` [default: evermq itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write the page of every command into this directory, made if missing
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ManError {
    /// No such command.
    #[error("there is no command \"{0}\"; `evermq help` lists them")]
    NoCommand(String),
    /// A page cannot be written.
    #[error("cannot write {}; check the disk's space and who may write there", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

impl ManError {
    /// Whether the command line has to change.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoCommand(_))
    }
}

/// Prints or writes manual pages.
///
/// # Errors
/// See [`ManError`]; or standard output cannot be written.
pub fn run(args: &ManArgs) -> Result<ExitCode, CommandError> {
    let mut tree = Cli::command().disable_help_subcommand(true);
    tree.build();
    if let Some(dir) = &args.dir {
        fs::create_dir_all(dir).map_err(|source| ManError::Write { path: dir.clone(), source })?;
        let written = write_all(&tree, dir)?;
        output::print(&format!("wrote {written} manual pages into {}\n", dir.display()))?;
    } else {
        let mut page = Vec::new();
        page_of(find(&tree, &args.command)?).render(&mut page)?;
        output::print(&String::from_utf8_lossy(&page))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(tree: &'a Command, path: &[String]) -> Result<&'a Command, ManError> {
    let mut command = tree;
    for name in path {
        command = command.find_subcommand(name).ok_or_else(|| ManError::NoCommand(path.join(" ")))?;
    }
    Ok(command)
}

fn write_all(command: &Command, dir: &Path) -> Result<usize, ManError> {
    let man = page_of(command);
    man.generate_to(dir).map_err(|source| ManError::Write { path: dir.join(man.get_filename()), source })?;
    let mut written = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        written += write_all(sub, dir)?;
    }
    Ok(written)
}

fn page_of(command: &Command) -> Man {
    Man::new(command.clone()).manual("EverMQ").source(format!("evermq {}", evermq_daemon::command::VERSION)).date("")
}
