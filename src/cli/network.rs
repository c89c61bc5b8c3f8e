//! `matterbind network …`

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::client::{self, PLAIN};
use super::exit::{CliError, ExitCode};
use super::output::{self, local, or_dash};
use super::{Global, block_on};
use crate::admin::wire::{NetworkList, NetworkOrder};
use crate::config::secret_file;
use crate::plain;
use crate::secret::{OperatorSecret, WifiPassword};

mod otbr;

/// A password or a dataset in hexadecimal.
const MAX_SECRET: u64 = 1024;

const EXAMPLES: &str = "\
Examples:
  matterbind network set wifi 'Home' --default        asks for the password
  pass show wifi | matterbind network set wifi Guests
  ot-ctl dataset active -x | matterbind network set thread
  matterbind network set thread --from-otbr http://otbr.local:8081
  sudo matterbind network set thread --from-otbr       the border router on this machine, over D-Bus
  matterbind commission MT:... --network Guests

What joins a network goes in and never comes out: no command, no backup in the clear, no log shows it.";

/// `network`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NetworkArgs {
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub action: NetworkCommand,
}

/// `network …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum NetworkCommand {
    /// List the networks that devices are brought to over Bluetooth
    List,
    /// Forget a network
    Forget {
        /// Its name
        name: String,
    },
    /// Tell the hub a network, or its new password
    Set {
        /// Which kind
        #[command(subcommand)]
        kind: SetCommand,
    },
}

/// `network set …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SetCommand {
    /// A Wi-Fi network; the password is asked for, or read from stdin
    Wifi {
        /// SSID
        ssid: String,
        /// A file or systemd credential with the password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// The network has no password
        #[arg(long, conflicts_with = "password_file")]
        open: bool,
        /// How it is called
        #[command(flatten)]
        naming: Naming,
    },
    /// A Thread network; its active dataset (TLV, hexadecimal) is read from stdin
    Thread {
        /// A file or systemd credential with the dataset
        #[arg(long, value_name = "FILE")]
        dataset_file: Option<PathBuf>,
        /// Take the active dataset from a border router's REST interface, or without URL over D-Bus from the one on this machine
        #[arg(long, value_name = "URL|dbus[:INTERFACE]", conflicts_with = "dataset_file", num_args = 0..=1,
              default_missing_value = otbr::DBUS)]
        from_otbr: Option<String>,
        /// How it is called
        #[command(flatten)]
        naming: Naming,
    },
}

/// How a network is called.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Naming {
    /// What to call it
    #[arg(long)]
    pub name: Option<String>,
    /// Bring devices to it where nobody names another
    #[arg(long)]
    pub default: bool,
}

pub(super) fn run(global: &Global, args: NetworkArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let list: NetworkList = match args.action {
        NetworkCommand::List => block_on(client.get(&["networks"], &(), PLAIN))?,
        NetworkCommand::Forget { name } => block_on(client.delete(&["networks", &name]))?,
        NetworkCommand::Set { kind } => {
            let order = order(kind)?;
            block_on(client.post(&["networks"], &order, PLAIN))?
        }
    };
    if args.json {
        output::json(&list)?;
    } else if list.networks.is_empty() {
        output::line("The hub knows no network: `matterbind network set wifi SSID` tells it one.")?;
    } else {
        output::line(&table(&list))?;
    }
    Ok(ExitCode::Done)
}

fn order(kind: SetCommand) -> Result<NetworkOrder, CliError> {
    Ok(match kind {
        SetCommand::Wifi { ssid, password_file, open, naming: Naming { name, default } } => {
            let password = match (open, password_file) {
                (true, _) => OperatorSecret::new(""),
                (false, Some(file)) => read_file(&file)?,
                (false, None) => read_secret("Password: ")?,
            };
            NetworkOrder::Wifi { ssid, password: WifiPassword::new(password.expose()), name, default }
        }
        SetCommand::Thread { dataset_file, from_otbr, naming: Naming { name, default } } => {
            let dataset = match (from_otbr, dataset_file) {
                (Some(from), _) => match otbr::interface(&from) {
                    Some(interface) => block_on(otbr::active_dataset(interface))?,
                    None => block_on(client::active_dataset(&from))?,
                },
                (None, Some(file)) => read_file(&file)?,
                (None, None) => read_secret("Dataset (hexadecimal): ")?,
            };
            NetworkOrder::Thread { dataset, name, default }
        }
    })
}

fn read_file(file: &std::path::Path) -> Result<OperatorSecret, CliError> {
    secret_file::read(file).map_err(|error| CliError::Usage(plain::with_causes(&error)))
}

/// From the terminal without echo, else from stdin's first line.
fn read_secret(prompt: &str) -> Result<OperatorSecret, CliError> {
    let failed = |source| CliError::Io { what: "reading the secret".to_owned(), source };
    let text = if std::io::stdin().is_terminal() {
        Zeroizing::new(rpassword::prompt_password(prompt).map_err(failed)?)
    } else {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().lock().take(MAX_SECRET).read_to_string(&mut text).map_err(failed)?;
        text
    };
    Ok(OperatorSecret::new(text.lines().next().unwrap_or_default()))
}

fn table(list: &NetworkList) -> String {
    let mut table = output::table(&["name", "kind", "network", "default", "set"]);
    for network in &list.networks {
        table.add_row([
            network.name.clone(),
            network.kind.clone(),
            network.id.clone(),
            if network.default { "default".to_owned() } else { String::new() },
            if network.configured { "in the configuration".to_owned() } else { or_dash(network.set_at.map(local)) },
        ]);
    }
    output::table_text(&table)
}
