//! That an interface or an address came, changed or went, as the kernel tells it (rtnetlink(7)), so that nobody has to list them
//! again and again to notice. Not here: what they are now (`interfaces`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::unix::AsyncFd;

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// What is told is not read, only that it was; a longer message is cut off.
const MESSAGE: usize = 64;
/// So many messages are taken at once before anybody else gets a turn.
const BURST: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// In the network namespace of the calling thread. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system allows no such socket.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // SAFETY: an `OwnedFd` is open for as long as it lives, and nobody else has this one.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    /// Comes back when something has changed since it did so last. Cancelling loses nothing.
    ///
    /// # Errors
    /// The socket tells nothing any more.
    pub(crate) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut told = false;
            for _ in 0..BURST {
                match recv(self.0.as_raw_fd(), &mut [0; MESSAGE], MsgFlags::MSG_TRUNC) {
                    // More was told than the socket holds: something has changed in any case.
                    Ok(1..) | Err(nix::Error::ENOBUFS) => told = true,
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(nix::Error::EAGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(nix::Error::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if told {
                return Ok(());
            }
        }
    }
}
