//! Listens: on the Unix socket always, on TCP where it is configured.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{self, Guard};
use super::connections::{Encrypted, Serving};
use super::routes::{Api, router};
use super::tls::Tls;
use crate::config::{Config, bearer};
use crate::hub::doors::Doors;
use crate::secret::OperatorSecret;
use crate::telemetry::metrics::Metrics;

/// Readable and writable for the service and its group; everybody else is refused before the first byte.
const SOCKET_MODE: u32 = 0o660;
/// How long a client may take its last answer at a stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the admin API listens on.
#[derive(Debug)]
pub struct AdminOptions {
    /// The Unix socket, which root and the configured group may use.
    pub socket: PathBuf,
    /// An address on the network, and the token to show there.
    pub tcp: Option<(SocketAddr, OperatorSecret)>,
    /// Names by which browsers may know the hub, beside its addresses and its own name.
    pub hosts: Vec<String>,
}

impl AdminOptions {
    /// As configured; reads the token's file.
    ///
    /// # Errors
    /// The token cannot be read, or the address is none (`check-config` says the same earlier).
    pub fn from_config(config: &Config) -> Result<Self, BindError> {
        let tcp = match config.admin.tcp.as_str() {
            "" => None,
            text => {
                let address = text.parse().map_err(|_| BindError::Address(text.to_owned()))?;
                let token = bearer::read(Path::new(&config.admin.token_file))?;
                Some((address, token))
            }
        };
        Ok(Self { socket: config.socket.clone(), tcp, hosts: config.admin.hosts.clone() })
    }
}

/// The admin API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers on the socket.
    #[error("another daemon listens on {}; stop it, or configure another socket", .0.display())]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// The configured `socket`, or where its directory would be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `admin.tcp` is no address.
    #[error("admin.tcp: {0:?} is no address with a port")]
    Address(String),
    /// `admin.tcp` cannot be listened on.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The configured `admin.tcp`, port included.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("admin.token_file cannot be used; {how}", how = bearer::HOW)]
    Token(#[from] bearer::TokenError),
}

/// Sockets that listen already: clients may connect, and are answered as soon as [`AdminServer::serve`] runs.
pub struct AdminServer {
    unix: UnixListener,
    socket: PathBuf,
    tcp: Option<TcpListener>,
    tls: Option<Tls>,
    guard: Guard,
}

impl AdminServer {
    /// Listens. A socket file that a dead daemon left is replaced.
    ///
    /// # Errors
    /// Another daemon is there, or the system refuses.
    pub async fn bind(options: AdminOptions) -> Result<Self, BindError> {
        let AdminOptions { socket, tcp, hosts } = options;
        let unix = listen_on(&socket).await?;
        let (tcp, token) = match tcp {
            Some((address, token)) => {
                let listener = TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?;
                (Some(listener), Some(token))
            }
            None => (None, None),
        };
        Ok(Self { unix, socket, tcp, tls: None, guard: Guard::new(token).with_names(hosts) })
    }

    /// With TLS on TCP, and nothing else there.
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With a way in for apps that show the code of an invitation.
    pub fn with_enrolment(mut self) -> Self {
        self.guard = self.guard.with_enrolment();
        self
    }

    /// With another guard than that of this process's ids.
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// The TCP address, where there is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers until `stop`, then until every request under way is answered and every attempt has ended. The caller sets
    /// the deadline for that. The socket file is removed at the end.
    pub async fn serve<H: Doors>(self, hub: Arc<H>, metrics: Arc<Metrics>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let (metrics_of_api, shared) = (Arc::clone(&metrics), Arc::default());
        let api = Api { hub, metrics: metrics_of_api, tasks: tasks.clone(), stop: stop.clone(), shared };
        let (open, close) = (TaskTracker::new(), CancellationToken::new());
        let serving =
            Serving { router: router(api, self.guard), metrics, open: open.clone(), stop, close: close.clone() };
        let tcp = async {
            match (self.tcp, self.tls) {
                (Some(listener), Some(tls)) => serving.clone().listen(Encrypted { listener, tls }).await,
                (Some(listener), None) => serving.clone().listen(listener).await,
                (None, _) => {}
            }
        };
        tokio::join!(serving.clone().listen(self.unix), tcp);
        tasks.close();
        tasks.wait().await;
        open.close();
        // Everything is answered. Whoever does not take the answer now is not waited for.
        let _ = tokio::time::timeout(FAREWELL, open.wait()).await;
        close.cancel();
        open.wait().await;
        // A failure to remove it is harmless: the next daemon replaces it.
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn listen_on(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Socket { path: path.to_owned(), source };
    if UnixStream::connect(path).await.is_ok() {
        return Err(BindError::InUse(path.to_owned()));
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if is_socket(&found) => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(failed(io::Error::other("there is a file of that name which is no socket"))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let has = std::fs::metadata(path).map_err(failed)?.gid();
    // Under its unit the daemon's own group is the right one already.
    if let Some(group) = auth::group_id(auth::ADMIN_GROUP).filter(|group| *group != has) {
        // Without the right to give it away the group cannot connect; root and the service's user still can.
        if let Err(error) = std::os::unix::fs::chown(path, None, Some(group)) {
            tracing::warn!(socket = %path.display(), %error, "cannot give the admin socket to the group matterbind");
        }
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

fn is_socket(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
}
