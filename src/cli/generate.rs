//! `matterbind completions` and `matterbind man`: written from the definitions of the commands.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::exit::{CliError, ExitCode};
use super::output;

/// `completions`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matterbind completions bash > /etc/bash_completion.d/matterbind
  matterbind completions zsh > ~/.zfunc/_matterbind")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// `man`
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Where to write them
    pub dir: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "matterbind", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::Done)
}

pub(super) fn man(args: &ManArgs) -> Result<ExitCode, CliError> {
    let failed = |source| CliError::Io { what: args.dir.display().to_string(), source };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    Ok(ExitCode::Done)
}
