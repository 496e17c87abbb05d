//! The client's side: a socket made by plain calls, put into the ring's table, and connected by the ring.

use std::io;
use std::net::SocketAddr;

use super::slots::Stage;
use super::{ConnId, Event, Net, NetError};
use crate::sys::socket;

impl Net {
    /// Starts connecting to `peer`, from `local` if given (with port 0 the kernel chooses one). `Connected` or
    /// `ConnectFailed` follows; bytes may be sent from the former on. Closing gives up.
    pub fn connect(&mut self, peer: SocketAddr, local: Option<SocketAddr>) -> Result<ConnId, NetError> {
        let connections_max = self.config.connections_max;
        if self.slots.open() >= connections_max as usize {
            return Err(NetError::ConnectionsFull { connections_max });
        }
        let conn = self.slots.take(Stage::Connecting).ok_or(NetError::ConnectionsFull { connections_max })?;
        let installed =
            socket::connector(peer, local).and_then(|socket| self.ring.install(conn.index, &socket));
        match installed {
            Ok(()) => {
                let key = self.ring.connect(conn, peer);
                if let Some(slot) = self.slots.get(conn) {
                    slot.connecting = true;
                    slot.owned = key;
                }
            }
            Err(error) => {
                self.slots.vacate(conn);
                self.events.push_back(Event::ConnectFailed { conn, error });
            }
        }
        Ok(conn)
    }

    pub(super) fn on_connected(&mut self, conn: ConnId, result: io::Result<()>) {
        let Some(slot) = self.slots.get(conn) else { return };
        slot.connecting = false;
        if slot.stage == Stage::Dead {
            self.free_if_over(conn);
            return;
        }
        match result {
            Ok(()) => {
                slot.stage = Stage::Open;
                self.events.push_back(Event::Connected { conn });
                self.arm_receive(conn);
            }
            Err(error) => {
                self.ring.close(conn.index);
                self.slots.vacate(conn);
                self.events.push_back(Event::ConnectFailed { conn, error });
            }
        }
    }
}
