//! `matterbind demo`, `cloud-sim`, `virtual-device`: to try things on. Left out of the hub's package.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::daemon::stop_on_signal;
use super::exit::{CliError, ExitCode};
use super::{Global, block_on, output};
use crate::sim::cloud::{self, Scenario};
use crate::sim::virtual_device::args;
pub(crate) use crate::sim::virtual_device::args::VirtualDeviceArgs;

/// `demo`
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit 0 only if every device is in sync.")]
pub(crate) struct DemoArgs {
    /// How many virtual devices
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub devices: u16,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Keep state and logs in this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `cloud-sim`
#[derive(Debug, clap::Args)]
pub(crate) struct CloudSimArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    pub listen: SocketAddr,
    /// Faults to play, as TOML
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
}

pub(super) fn cloud_sim(_: &Global, args: CloudSimArgs) -> Result<ExitCode, CliError> {
    let scenario = match &args.scenario {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| CliError::File { what: format!("reading {}", path.display()), source })?;
            Scenario::parse(&text).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?
        }
        None => Scenario::default(),
    };
    block_on(async {
        let listener = TcpListener::bind(args.listen)
            .await
            .map_err(|source| CliError::File { what: format!("listening on {}", args.listen), source })?;
        let address = listener.local_addr().map_err(anyhow::Error::new)?;
        output::line(&format!("reference cloud on http://{address}, described at /openapi.json"))?;
        let stop = stop_on_signal()?;
        cloud::serve(listener, scenario, stop).await.map_err(anyhow::Error::new)?;
        Ok(ExitCode::Done)
    })
}

pub(super) fn virtual_device(_: &Global, args: VirtualDeviceArgs) -> Result<ExitCode, CliError> {
    block_on(async { Ok(args::main(args).await.map(|()| ExitCode::Done)?) })
}
