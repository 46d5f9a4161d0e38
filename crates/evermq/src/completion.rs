//! `evermq completion`: the script that lets a shell complete the command line.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::command::{Cli, CommandError};
use crate::output;

/// `evermq completion SHELL`
#[derive(Debug, Args)]
#[command(after_help = "bash: evermq completion bash > /etc/bash_completion.d/evermq\n\
                        zsh:  evermq completion zsh > /usr/local/share/zsh/site-functions/_evermq\n\
                        fish: evermq completion fish > /etc/fish/completions/evermq.fish")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &CompletionArgs) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "evermq", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
