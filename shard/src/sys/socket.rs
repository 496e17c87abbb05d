//! Sockets as the ring needs them: made and bound by plain calls, then used through the ring alone.
//!
//! Not here: anything that waits. Accept, connect, receive and send are the ring's (`uring.rs`).
#![expect(
    unsafe_code,
    reason = "socket calls that std does not offer: options before bind, bind before connect"
)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An address as the kernel wants it, with room for any family.
#[derive(Clone, Copy)]
pub(crate) struct KernelAddr {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) len: libc::socklen_t,
}

const STORAGE_LEN: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

impl KernelAddr {
    /// Room for an address that the kernel will write.
    pub(crate) fn empty() -> KernelAddr {
        // SAFETY: sockaddr_storage is plain integers; all zeroes is a valid value (family 0, unspecified).
        KernelAddr { storage: unsafe { mem::zeroed() }, len: STORAGE_LEN }
    }

    /// What the kernel wrote; `None` for a family that is neither IPv4 nor IPv6.
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        let storage: *const libc::sockaddr_storage = &self.storage;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says which struct this is; the storage is large and aligned enough for both.
                let v4 = unsafe { &*storage.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id)))
            }
            _ => None,
        }
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }
}

impl From<SocketAddr> for KernelAddr {
    fn from(addr: SocketAddr) -> KernelAddr {
        let mut kernel = KernelAddr::empty();
        let storage: *mut libc::sockaddr_storage = &mut kernel.storage;
        match addr {
            SocketAddr::V4(v4) => {
                // SAFETY: the storage is zeroed, large and aligned enough for a sockaddr_in.
                let to = unsafe { &mut *storage.cast::<libc::sockaddr_in>() };
                to.sin_family = libc::AF_INET as libc::sa_family_t;
                to.sin_port = v4.port().to_be();
                to.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                kernel.len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(v6) => {
                // SAFETY: as above, for a sockaddr_in6.
                let to = unsafe { &mut *storage.cast::<libc::sockaddr_in6>() };
                to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                to.sin6_port = v6.port().to_be();
                to.sin6_addr.s6_addr = v6.ip().octets();
                to.sin6_flowinfo = v6.flowinfo();
                to.sin6_scope_id = v6.scope_id();
                kernel.len = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        kernel
    }
}

/// A listening socket on `addr` that shares its port with the other loops' (SO_REUSEPORT). Connections inherit
/// TCP_NODELAY from it, which saves a call for each.
pub(crate) fn listener(addr: SocketAddr, backlog: u16) -> io::Result<OwnedFd> {
    let fd = stream(addr)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, true)?;
    set(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, true)?;
    bind(&fd, addr)?;
    // SAFETY: a plain call on a socket that we own.
    check(unsafe { libc::listen(fd.as_raw_fd(), i32::from(backlog)) })?;
    Ok(fd)
}

/// A socket ready to connect, bound to `local` if one is given (its port 0 leaves the choice to the kernel at
/// connect, when the peer is known and the same port may serve several peers).
pub(crate) fn connector(peer: SocketAddr, local: Option<SocketAddr>) -> io::Result<OwnedFd> {
    let fd = stream(peer)?;
    set(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, true)?;
    if let Some(local) = local {
        set(&fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, true)?;
        bind(&fd, local)?;
    }
    Ok(fd)
}

/// Binds `addr` for those of this user who ask to share its port (SO_REUSEPORT), and for nobody who claims it, too: the
/// socket, to be kept until they listen, and the address with a real port. It takes no connections.
///
/// ```text
/// first    may share an address, listens: fails if anybody listens there, sharing or not
/// claim    bound beside it, by sharing; from then on it does not share with those that only may share an address
/// ```
///
/// The first one alone would not do: it has to go before others listen, and in between any process that asks the same
/// way finds the port free.
pub(crate) fn claim(addr: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let first = stream(addr)?;
    // Connections of an earlier run in TIME_WAIT do not count as taken; a listener still does.
    set(&first, libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
    bind(&first, addr)?;
    // Two sockets with SO_REUSEADDR may both bind; only listening tells a taken port from a free one for sure.
    // SAFETY: a plain call on a socket that we own.
    check(unsafe { libc::listen(first.as_raw_fd(), 1) })?;
    let addr = local_addr(&first)?;
    set(&first, libc::SOL_SOCKET, libc::SO_REUSEPORT, true)?;
    let claim = stream(addr)?;
    set(&claim, libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
    set(&claim, libc::SOL_SOCKET, libc::SO_REUSEPORT, true)?;
    bind(&claim, addr)?;
    set(&claim, libc::SOL_SOCKET, libc::SO_REUSEADDR, false)?;
    Ok((claim, addr))
}

/// The address that the socket is bound to.
pub(crate) fn local_addr(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let mut addr = KernelAddr::empty();
    // SAFETY: both pointers are to live, writable memory, and `len` says how much room there is.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut addr.storage).cast(), &mut addr.len) })?;
    addr.get().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn stream(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a descriptor that the kernel has just given to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(fd: &OwnedFd, level: i32, option: i32, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option's value is a live int of the length given.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) })?;
    Ok(())
}

fn bind(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let addr = KernelAddr::from(addr);
    // SAFETY: the address is live and its length is the one of its family.
    check(unsafe { libc::bind(fd.as_raw_fd(), addr.as_ptr(), addr.len) })?;
    Ok(())
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What we tell the kernel and what it would tell us mean the same, byte order included.
    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["127.0.0.1:8080", "10.1.2.3:1", "[::1]:65535", "[2001:db8::7]:443", "[fe80::1%3]:9"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(KernelAddr::from(addr).get(), Some(addr), "{text}");
        }
        assert_eq!(KernelAddr::empty().get(), None);
    }
}
