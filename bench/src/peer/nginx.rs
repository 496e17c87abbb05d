//! nginx as the reference: one worker on one core that answers every request with a fixed 202, nothing behind it.
//!
//! `return` in a location makes nginx read and discard the request's body, so the connection lives on.

use super::{Peer, PeerError, Start, find, folder, free_addr};
use shard::topology::CoreId;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const NAME: &str = "nginx";

/// Connections of its worker at most.
const CONNECTIONS_MAX: u32 = 65_536;

/// Starts it on a core and waits until it answers.
pub(crate) fn start(core: CoreId) -> Result<Peer, PeerError> {
    let Some(binary) = find(NAME) else {
        let hint = "install Debian's nginx-light (`make test-needs` does)".to_owned();
        return Err(PeerError::Missing { name: NAME, hint });
    };
    let io = |source| PeerError::Io { name: NAME, source };
    let folder = folder(None).map_err(io)?;
    let addr = free_addr().map_err(io)?;
    let config = folder.path().join("nginx.conf");
    fs::write(&config, configuration(addr, core, folder.path())).map_err(io)?;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&config).args(arguments);
        // Until it has read its configuration it logs to a file that an ordinary user may not write.
        command.arg("-e").arg(folder.path().join("error.log"));
        command
    };
    let (start, stop) = (command(&[]), command(&["-s", "stop"]));
    Peer::start(
        Start { name: NAME, command: start, stop: Some(stop), addr, ready: "/health", core: None },
        folder,
    )
}

fn configuration(addr: SocketAddr, core: CoreId, folder: &Path) -> String {
    // One digit a core, the last one is core 0.
    let affinity = format!("1{}", "0".repeat(core.0));
    let folder = folder.display();
    format!(
        r#"daemon off;
worker_processes 1;
worker_cpu_affinity {affinity};
worker_rlimit_nofile {CONNECTIONS_MAX};
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{
    worker_connections {CONNECTIONS_MAX};
    use epoll;
    multi_accept on;
}}
http {{
    access_log off;
    default_type application/json;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    client_body_in_single_buffer on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {addr} backlog=4096;
        location = /health {{ return 200 '{{"status":"healthy"}}'; }}
        location / {{ return 202 '{{"status":"accepted"}}'; }}
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_pins_one_worker_and_stays_in_its_folder() {
        let text = configuration("127.0.0.1:8081".parse().unwrap(), CoreId(2), Path::new("/tmp/x"));
        for line in [
            "worker_processes 1;",
            "worker_cpu_affinity 100;",
            "listen 127.0.0.1:8081 backlog=4096;",
            r#"location / { return 202 '{"status":"accepted"}'; }"#,
            "access_log off;",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        for path in text.split_whitespace().filter(|word| word.starts_with('/') && word.len() > 1) {
            let is_location = path == "/health";
            assert!(is_location || path.starts_with("/tmp/x/"), "{path}");
        }
        assert!(
            configuration("127.0.0.1:1".parse().unwrap(), CoreId(0), Path::new("/x")).contains("affinity 1;")
        );
    }
}
