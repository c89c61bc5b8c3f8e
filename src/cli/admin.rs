//! `matterbind admin token`: works without the daemon.

use super::exit::{CliError, ExitCode};
use super::output;
use crate::config::bearer;

const TOKEN_NOTE: &str = "\
Only the token is printed. To put it where admin.token_file names it, readable for the service and nobody else:
  matterbind admin token | sudo install -m 640 -g matterbind /dev/stdin /etc/matterbind/token";

/// `admin`
#[derive(Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// What to do
    #[command(subcommand)]
    pub action: AdminCommand,
}

/// `admin …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AdminCommand {
    /// Make a token for the admin API over TCP
    #[command(after_help = TOKEN_NOTE)]
    Token {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &AdminArgs) -> Result<ExitCode, CliError> {
    match args.action {
        AdminCommand::Token { json: false } => output::line(bearer::make().expose())?,
        AdminCommand::Token { json: true } => output::json(&serde_json::json!({ "token": bearer::make().expose() }))?,
    }
    Ok(ExitCode::Done)
}
