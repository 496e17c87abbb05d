//! Whose port it is: from the kernel's socket tables to an inode, from the inode to the processes that hold it.

use crate::measure::process;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

/// The state of a listening socket in these tables.
const LISTEN: &str = "0A";

/// The processes that listen on the address' port on this machine; none when it is another machine's, or when this
/// user may not look.
pub(crate) fn pids(addr: SocketAddr) -> Vec<u32> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        inodes.extend(inodes_listening(&fs::read_to_string(table).unwrap_or_default(), addr.port()));
    }
    if inodes.is_empty() || !addr.ip().is_loopback() {
        return Vec::new();
    }
    process::all_pids().into_iter().filter(|pid| holds_socket(*pid, &inodes)).collect()
}

fn inodes_listening(table: &str, port: u16) -> Vec<u64> {
    let lines = table.lines().skip(1);
    lines.filter_map(|line| inode_listening(line, port)).collect()
}

/// `sl local_address rem_address st … uid timeout inode`, addresses and ports in hex.
fn inode_listening(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local_port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    (local_port == port && *fields.get(3)? == LISTEN).then(|| fields.get(9)?.parse().ok())?
}

fn holds_socket(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links.filter_map(|link| socket_inode(link.to_str()?)).any(|inode| inodes.contains(&inode))
}

/// The number in `socket:[12345]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;
    use std::time::{Duration, Instant};

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
        1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n\
        2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n\
        3: broken\n";

    #[test]
    fn only_the_listening_socket_of_the_port_counts() {
        assert_eq!(inodes_listening(TABLE, 8080), [4711]);
        assert_eq!(inodes_listening(TABLE, 80), [4713]);
        assert_eq!(inodes_listening(TABLE, 81), [0_u64; 0]);
        assert_eq!(inodes_listening("", 80), [0_u64; 0]);
    }

    #[test]
    fn sockets_are_told_from_other_descriptors() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        assert_eq!(socket_inode("/dev/null"), None);
        assert_eq!(socket_inode("pipe:[4711]"), None);
    }

    #[test]
    fn a_port_of_this_process_leads_back_to_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = || pids(listener.local_addr().unwrap());
        // A process that another test starts holds our descriptors until it runs its program.
        let deadline = Instant::now() + Duration::from_secs(60);
        while found() != [std::process::id()] {
            assert!(Instant::now() < deadline, "{:?}", found());
            thread::yield_now();
        }
    }
}
