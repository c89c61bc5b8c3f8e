//! The command line: one file for each group of commands. All but the daemon's own side are clients of the admin API.
//!
//! `exit` maps everything to exit codes, `client` talks, `output` and `progress` show. Not here: doing the work.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use self::client::AdminClient;
use self::exit::{CliError, ExitCode};
use self::output::{Colour, Paint, Tone};
use crate::config::load::SOCKET_VARIABLE;
use crate::plain;

pub(crate) mod access;
pub(crate) mod admin;
pub(crate) mod attestation;
pub(crate) mod client;
pub(crate) mod commission;
mod complete;
pub(crate) mod controller;
pub(crate) mod daemon;
#[cfg(feature = "sim")]
pub(crate) mod demo;
pub(crate) mod discover;
pub(crate) mod doctor;
pub(crate) mod exit;
pub(crate) mod fabric;
pub(crate) mod generate;
pub(crate) mod logs;
pub(crate) mod manifest;
pub(crate) mod network;
pub(crate) mod nodes;
pub(crate) mod numbers;
pub(crate) mod outbox;
pub(crate) mod output;
pub(crate) mod private_file;
pub(crate) mod progress;
#[cfg(feature = "sim")]
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod sync;

const GLOBAL: &str = "Global options";
const EXIT_CODES: &str = "\
Exit codes:
  0 done                      4 device problem (not found, wrong passcode, unreachable)
  1 internal error            5 daemon not reachable
  2 usage or configuration    6 done locally, cloud still pending
  3 refused by policy";

/// Commissions Matter devices, and keeps device, local record and cloud in agreement.
#[derive(Debug, Parser)]
#[command(name = "matterbind", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// The daemon's socket [default: /run/matterbind/admin.sock, else in $XDG_RUNTIME_DIR/matterbind] [env:
    /// MATTERBIND_SOCKET]
    #[arg(long, global = true, value_name = "PATH", help_heading = GLOBAL)]
    pub socket: Option<PathBuf>,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = GLOBAL)]
    pub verbose: u8,
    /// When to use colours: auto, always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true,
        hide_default_value = true,
        help_heading = GLOBAL
    )]
    pub color: Colour,
}

impl Global {
    /// The daemon to talk to. The variable is the client's alone: a daemon that is started in the same shell keeps its own socket.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub(crate) fn client(&self) -> Result<AdminClient, CliError> {
        let variable = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        AdminClient::new(&self.socket.clone().or(variable).unwrap_or_else(client::default_socket))
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a device, or many: find it, check it, give it credentials, record it, bind it in the cloud
    Commission(commission::CommissionArgs),
    /// List Matter devices on the LAN and Bluetooth
    Discover(discover::DiscoverArgs),
    /// List the nodes of our fabric
    Nodes(nodes::NodesArgs),
    /// Look at one node, or change it
    Node(nodes::NodeArgs),
    /// Show cloud work that is not acknowledged, and why
    Outbox(outbox::OutboxArgs),
    /// Compare device, record and cloud now, and print every difference
    Sync(sync::SyncArgs),
    /// Show the admin log
    Logs(logs::LogsArgs),
    /// Show how daemon, fabric, nodes, outbox and cloud stand
    Status(status::StatusArgs),
    /// Look at everything around the hub, and say what is wrong and what to do
    Doctor(doctor::DoctorArgs),
    /// Who may do what on the nodes: show, set, apply, rotate
    Access(access::AccessArgs),
    /// Other controllers: give them certificates, renew them, shut them out, invite apps
    Controller(controller::ControllerArgs),
    /// Networks that devices are brought to over Bluetooth: set, list, forget
    Network(network::NetworkArgs),
    /// The fabric's identity and keys: show, back up, restore
    Fabric(fabric::FabricArgs),
    /// Device attestation: verify evidence, refresh the trust store
    Attestation(attestation::AttestationArgs),
    /// The admin API: make a token for it
    Admin(admin::AdminArgs),
    /// Run the service
    Daemon(daemon::DaemonArgs),
    /// Judge the configuration and print what is in force
    CheckConfig(daemon::CheckConfigArgs),
    /// Show the whole product in one go, without devices, cloud or rights
    #[cfg(feature = "sim")]
    Demo(sim::DemoArgs),
    /// Run the reference binding service
    #[cfg(feature = "sim")]
    CloudSim(sim::CloudSimArgs),
    /// Run a Matter device to try things on
    #[cfg(feature = "sim")]
    VirtualDevice(sim::VirtualDeviceArgs),
    /// Print a shell's completions
    Completions(generate::CompletionsArgs),
    /// Write man pages
    Man(generate::ManArgs),
    /// Print the configuration's JSON Schema, for editors
    ConfigSchema(generate::SchemaArgs),
}

/// The whole program: parses, runs, and says with what to end. Starts no thread before the command does.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // A shell asks how a line may go on.
    let here = std::env::current_dir().ok();
    if let Ok(true) = complete::environment().try_complete(arguments.clone(), here.as_deref()) {
        return ExitCode::Done;
    }
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => run(cli),
        // Help and version are no mistakes and go to stdout; clap knows which is which.
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            ExitCode::Done
        }
        Err(error) => {
            let rendered = error.render();
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            let text = if colour { rendered.ansi().to_string() } else { rendered.to_string() };
            let plain = plain_value(&error);
            let _ = std::io::stderr().write_all(without_codes(text, &arguments, plain).as_bytes());
            let said = without_codes(rendered.to_string(), &arguments, plain);
            JsonFailure::of_line(&arguments).print(&CliError::Usage(mistake(&said)));
            ExitCode::Usage
        }
    }
}

/// The sentence in clap's message, without tips and usage that follow: they are for a person.
fn mistake(message: &str) -> String {
    let first = message.split("\n\n").next().unwrap_or_default();
    match first.strip_prefix("error: ") {
        Some(said) => said.split_whitespace().collect::<Vec<_>>().join(" "),
        // The help of a group of commands.
        None => "a command is missing".to_owned(),
    }
}

/// The value that clap did not understand, where it was given for an option that takes times and small numbers: it is shown, or
/// nobody sees what is wrong about it.
fn plain_value(error: &clap::Error) -> Option<&str> {
    const PLAIN: [&str; 8] =
        ["--since", "--vendor-id", "--product-id", "--devices", "--port", "--discriminator", "--jobs", "--timeout"];
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg)?.split(' ').next()?;
    PLAIN.contains(&option).then(|| text(ContextKind::InvalidValue)).flatten()
}

/// Takes out of clap's message whatever in the arguments looks like a setup code, a passcode or a binding code: clap
/// repeats what it does not understand. But for `plain`.
fn without_codes(mut message: String, arguments: &[OsString], plain: Option<&str>) -> String {
    let words = arguments.iter().filter_map(|argument| argument.to_str());
    for word in words.flat_map(|word| [Some(word), word.split_once('=').map(|(_, value)| value)]).flatten() {
        if plain == Some(word) {
            continue;
        }
        let is_qr = word.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("MT:"));
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let is_manual = digits >= 5 && word.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '));
        let is_binding = word.len() == 16 && word.chars().all(|c| c.is_ascii_hexdigit());
        if is_qr || is_manual || is_binding {
            message = message.replace(word, "(a code)");
        }
    }
    message
}

fn run(cli: Cli) -> ExitCode {
    let Cli { global, command } = cli;
    let json = command.wants_json();
    match dispatch(&global, command) {
        Ok(code) => code,
        // The reader of a pipe has what it wanted.
        Err(CliError::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::Done,
        Err(error) => {
            report(&global, json, &error);
            error.exit_code()
        }
    }
}

fn dispatch(global: &Global, command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Commission(args) => commission::run(global, args),
        Command::Discover(args) => discover::run(global, &args),
        Command::Nodes(args) => nodes::list(global, &args),
        Command::Node(args) => nodes::run(global, args),
        Command::Outbox(args) => outbox::run(global, &args),
        Command::Sync(args) => sync::run(global, &args),
        Command::Logs(args) => logs::run(global, args),
        Command::Status(args) => status::run(global, &args),
        Command::Doctor(args) => doctor::run(global, &args),
        Command::Access(args) => access::run(global, args),
        Command::Controller(args) => controller::run(global, args),
        Command::Network(args) => network::run(global, args),
        Command::Fabric(args) => fabric::run(global, args),
        Command::Attestation(args) => attestation::run(global, args),
        Command::Admin(args) => admin::run(&args),
        Command::Daemon(args) => daemon::run(global, args),
        Command::CheckConfig(args) => daemon::check_config(global, args),
        #[cfg(feature = "sim")]
        Command::Demo(args) => demo::run(global, args),
        #[cfg(feature = "sim")]
        Command::CloudSim(args) => sim::cloud_sim(global, args),
        #[cfg(feature = "sim")]
        Command::VirtualDevice(args) => sim::virtual_device(global, args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
        Command::ConfigSchema(generate::SchemaArgs {}) => generate::config_schema(),
    }
}

/// How a command's failure is written to stdout, where a script reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JsonFailure {
    No,
    /// The API's error body.
    Document,
    /// The failure answer of `commission`.
    Outcome,
}

impl JsonFailure {
    /// What a line asks for that clap does not understand: by its words, for there is nothing else.
    fn of_line(arguments: &[OsString]) -> Self {
        let options = arguments.iter().take_while(|word| *word != "--");
        if !options.clone().any(|word| word == "--json" || word == "--events") {
            return Self::No;
        }
        let command = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok();
        match command.as_ref().and_then(clap::ArgMatches::subcommand_name) {
            Some("commission") => Self::Outcome,
            _ => Self::Document,
        }
    }

    fn print(self, error: &CliError) {
        let _ = match self {
            Self::No => Ok(()),
            Self::Document => output::json_line(&error.document()),
            Self::Outcome => output::json_line(&error.outcome()),
        };
    }
}

impl Command {
    fn wants_json(&self) -> JsonFailure {
        let json = match self {
            Self::Commission(args) if args.json || args.events => return JsonFailure::Outcome,
            Self::Discover(args) => args.json,
            Self::Nodes(args) => args.json,
            Self::Node(args) => args.action.json(),
            Self::Outbox(args) => args.json,
            Self::Sync(args) => args.json,
            Self::Logs(args) => args.json,
            Self::Status(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Access(args) => args.json,
            Self::Controller(args) => args.json,
            Self::Network(args) => args.json,
            Self::Fabric(args) => args.action.json(),
            Self::Attestation(args) => args.action.json(),
            #[cfg(feature = "sim")]
            Self::Demo(args) => args.json,
            _ => false,
        };
        if json { JsonFailure::Document } else { JsonFailure::No }
    }
}

/// Says what went wrong: a person on stderr, a script also on stdout.
fn report(global: &Global, json: JsonFailure, error: &CliError) {
    let paint = Paint::stderr(global.color);
    output::note(&format!("{} {}", paint.tone(Tone::Bad, "error:"), plain::with_causes(error)));
    if !error.hint().is_empty() {
        output::note(&format!("{} {}", paint.tone(Tone::Strong, "hint:"), error.hint()));
    }
    json.print(error);
}

/// Runs a client's future on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "starting the runtime".to_owned(), source })?;
    runtime.block_on(future)
}

#[cfg(test)]
mod tests;
