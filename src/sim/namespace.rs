//! A network of this process's own, with nothing but loopback in it, so that `matterbind demo` touches no real network.
//!
//! Children inherit it. Not here: what runs inside, and what to do where the kernel refuses (`app` says so and uses the
//! host's loopback).

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

/// The process is in a network namespace of its own; there is no way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// Whether a user namespace was needed too: inside it the process is root, outside it is who it was.
    pub user_namespace: bool,
}

impl Isolation {
    /// The only interface there: up, with multicast, 127.0.0.1 and ::1.
    pub const INTERFACE: &'static str = "lo";
}

/// Why the process stays in the host's network.
#[derive(Debug, thiserror::Error)]
pub enum IsolationRefused {
    /// Namespaces are made for the calling thread alone, so it must be the only one.
    #[error("the process already has {0} threads")]
    Threads(usize),
    /// The kernel or a container's policy said no; nothing has changed.
    #[error("the kernel does not allow it ({what})")]
    Kernel {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// The namespace is there but its loopback could not be set up: the process has no network at all any more.
    #[error("the new network could not be set up ({what})")]
    SetUp {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

impl IsolationRefused {
    /// Whether the caller can go on in the host's network.
    pub fn can_go_on(&self) -> bool {
        !matches!(self, Self::SetUp { .. })
    }
}

/// Moves the process into a new network namespace and brings loopback up there, with multicast.
///
/// Call it first thing in `main`. As root one `unshare(CLONE_NEWNET)`; as anyone else, and where root lacks the right,
/// `CLONE_NEWUSER | CLONE_NEWNET` with the caller mapped to root.
///
/// # Errors
/// See [`IsolationRefused`], and ask it whether to go on.
pub fn enter_private_network() -> Result<Isolation, IsolationRefused> {
    let threads = threads();
    if threads != 1 {
        return Err(IsolationRefused::Threads(threads));
    }
    let (user, group) = (geteuid(), getegid());
    let user_namespace = !(user.is_root() && unshare(UnshareFlags::NEWNET).is_ok());
    if user_namespace {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)
            .map_err(|source| IsolationRefused::Kernel { what: "a user and network namespace", source })?;
        map_to_root(user.as_raw(), group.as_raw())
            .map_err(|source| IsolationRefused::SetUp { what: "the user mapping", source })?;
    }
    bring_loopback_up().map_err(|source| IsolationRefused::SetUp { what: "loopback", source })?;
    Ok(Isolation { user_namespace })
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: neither flag touches the file descriptor table, which is what makes unsharing unsafe in general.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

fn map_to_root(user: u32, group: u32) -> io::Result<()> {
    // user_namespaces(7): without "deny" an unprivileged process may not write its group map.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Up brings 127.0.0.1 and ::1. IPv4 then sends multicast there by itself; IPv6 wants a route for ff00::/8 that the kernel
/// adds on every interface but loopback.
fn bring_loopback_up() -> io::Result<()> {
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: `ifreq` is plain data for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(Isolation::INTERFACE.bytes()) {
        *place = byte as libc::c_char;
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOOPBACK | libc::IFF_MULTICAST;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`.
    unsafe { ioctl(control.as_fd(), libc::SIOCSIFFLAGS, &request) }?;
    match route_multicast_v6() {
        // A kernel without IPv6 has nothing to route.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        routed => routed,
    }
}

/// `struct in6_rtmsg` of linux/ipv6_route.h; libc's has private fields.
#[repr(C)]
#[derive(Default)]
struct RouteMessage {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_bits: u16,
    source_bits: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    interface: libc::c_int,
}

const _: () = assert!(size_of::<RouteMessage>() == size_of::<libc::in6_rtmsg>());

fn route_multicast_v6() -> io::Result<()> {
    let control = socket(AddressFamily::INET6, SocketType::DGRAM, None)?;
    let name = CString::new(Isolation::INTERFACE)?;
    // SAFETY: the name is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let mut route = RouteMessage {
        destination_bits: 8,
        metric: 256,
        flags: u32::from(libc::RTF_UP),
        interface: index.try_into().map_err(io::Error::other)?,
        ..RouteMessage::default()
    };
    route.destination[0] = 0xFF;
    // SAFETY: on an IPv6 socket SIOCADDRT reads an `in6_rtmsg`.
    unsafe { ioctl(control.as_fd(), libc::SIOCADDRT, &route) }
}

/// # Safety
/// `request` must be one that only reads a `T`.
unsafe fn ioctl<T>(control: BorrowedFd<'_>, request: libc::Ioctl, argument: &T) -> io::Result<()> {
    // SAFETY: the descriptor is open, the argument outlives the call and, says the caller, is of the right type.
    match unsafe { libc::ioctl(control.as_raw_fd(), request, std::ptr::from_ref(argument)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused_and_can_go_on() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        let refused = enter_private_network().unwrap_err();
        assert!(matches!(refused, IsolationRefused::Threads(threads) if threads > 1));
        assert!(refused.can_go_on());
        drop(stop);
        assert!(other.join().unwrap().is_err());
    }
}
