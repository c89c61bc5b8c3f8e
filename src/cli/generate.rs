//! `matterbind completions`, `matterbind man` and `matterbind config-schema`: written from the definitions of the commands and of the
//! configuration.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_complete::env::Shells;

use super::exit::{CliError, ExitCode};
use super::output;
use super::{Cli, complete};
use crate::config;

/// `completions`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matterbind completions bash > /etc/bash_completion.d/matterbind
  matterbind completions zsh > ~/.zfunc/_matterbind")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// `man`
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Where to write them
    pub dir: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell.to_string());
    let shell = shell.ok_or_else(|| CliError::Usage(format!("{} cannot ask a program", args.shell)))?;
    // The script asks the program of that name, wherever it lies.
    let written = shell.write_registration(complete::VARIABLE, "matterbind", "matterbind", "matterbind", &mut script);
    written.map_err(|source| CliError::Io { what: "the script".to_owned(), source })?;
    output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::Done)
}

/// `config-schema`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Editors that know TOML take it, for instance Even Better TOML and Taplo, by a first line in the file:
  #:schema /usr/share/matterbind/config.schema.json")]
pub(crate) struct SchemaArgs {}

pub(super) fn config_schema() -> Result<ExitCode, CliError> {
    let schema = serde_json::to_string_pretty(&config::schema()).map_err(anyhow::Error::new)?;
    output::line(&schema)?;
    Ok(ExitCode::Done)
}

pub(super) fn man(args: &ManArgs) -> Result<ExitCode, CliError> {
    let failed = |source| CliError::File { what: args.dir.display().to_string(), source };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    Ok(ExitCode::Done)
}
