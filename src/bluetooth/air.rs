//! Air without radio: a directory in which virtual devices advertise and are connected to. An advertisement is a file with the
//! service data, a connection is a Unix stream that carries segments with their length before them. What holds for a radio holds
//! here: one connection at a time to a device, a link that may break, and nothing that queues without bound.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use super::{SEGMENTS, advertised, tell};
use crate::commissioning::radio::{BluetoothUnavailable, Gatt, Heard};
use crate::node::{BluetoothAddress, BluetoothNode};

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// ATT_MTU of a connection through the air: what BlueZ and most devices agree on.
const MTU: u16 = 247;
/// Every device is as near as every other.
const RSSI: i16 = -50;

fn advertisement(directory: &Path, address: BluetoothAddress) -> PathBuf {
    directory.join(format!("{address}.adv"))
}

fn socket(directory: &Path, address: BluetoothAddress) -> PathBuf {
    directory.join(format!("{address}.gatt"))
}

/// Listens until it is dropped, or the directory is gone.
pub(super) async fn scan(directory: &Path, heard: &watch::Sender<Heard>) -> BluetoothUnavailable {
    loop {
        match look(directory) {
            Ok(nodes) => tell(heard, nodes),
            Err(_) => return BluetoothUnavailable::NoAdapter { wanted: Some(directory.display().to_string()) },
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn look(directory: &Path) -> io::Result<Vec<BluetoothNode>> {
    let mut nodes = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let address = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(address), Some("adv")) = (address, path.extension().and_then(|extension| extension.to_str())) {
            // It may have ended its advertisement in this moment.
            let data = std::fs::read(&path).unwrap_or_default();
            nodes.extend(advertised(address, &data, RSSI));
        }
    }
    Ok(nodes)
}

/// Connects as the central.
pub(super) async fn connect(directory: &Path, address: BluetoothAddress) -> io::Result<Gatt> {
    Ok(gatt(UnixStream::connect(socket(directory, address)).await?))
}

/// One end of a connection: what is written goes to the other end, what comes from there is indicated.
pub(crate) fn gatt(stream: UnixStream) -> Gatt {
    let (from, to) = stream.into_split();
    let (writes, outgoing) = mpsc::channel(SEGMENTS);
    let (incoming, indications) = mpsc::channel(SEGMENTS);
    tokio::spawn(async move {
        tokio::select! {
            _ = send(outgoing, to) => {}
            _ = receive(from, incoming) => {}
        }
    });
    Gatt { mtu: Some(MTU), writes, indications }
}

async fn send(mut outgoing: mpsc::Receiver<Vec<u8>>, mut to: OwnedWriteHalf) -> io::Result<()> {
    while let Some(segment) = outgoing.recv().await {
        let length = u16::try_from(segment.len()).map_err(io::Error::other)?;
        to.write_all(&length.to_be_bytes()).await?;
        to.write_all(&segment).await?;
    }
    Ok(())
}

async fn receive(mut from: OwnedReadHalf, incoming: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        from.read_exact(&mut length).await?;
        let mut segment = vec![0; u16::from_be_bytes(length).into()];
        from.read_exact(&mut segment).await?;
        if incoming.send(segment).await.is_err() {
            return Ok(());
        }
    }
}

/// A device's side of the air.
pub(crate) struct Station {
    directory: PathBuf,
    address: BluetoothAddress,
    listener: UnixListener,
}

impl Station {
    /// A device with this address; needs a tokio runtime.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(crate) fn open(directory: &Path, address: BluetoothAddress) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = socket(directory, address);
        // One of a device that was killed; it may have been advertising, too.
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(advertisement(directory, address));
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { directory: directory.to_owned(), address, listener })
    }

    /// Advertises this service data, or nothing.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(crate) fn advertise(&self, data: Option<&[u8]>) -> io::Result<()> {
        let path = advertisement(&self.directory, self.address);
        match data {
            Some(data) => {
                let temporary = path.with_extension("new");
                std::fs::write(&temporary, data)?;
                std::fs::rename(&temporary, &path)
            }
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// The next central that connects.
    ///
    /// # Errors
    /// The socket fails.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        // Where they are gone already, nobody sees them.
        let _ = self.advertise(None);
        let _ = std::fs::remove_file(socket(&self.directory, self.address));
    }
}
