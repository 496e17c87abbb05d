//! The way out of a loop: no new clients, answers owed go out, the journal is synced, executors are told.

use super::Front;
use crate::message::ToStore;

/// How long a stopping loop waits for its clients to take their answers.
const LINGER_NANOS: u64 = 5_000_000_000;

impl Front {
    /// The way out: no new clients, answers owed go out, the journal is synced. True when done.
    pub(super) fn finish(&mut self) -> bool {
        let now = self.exchange.now.nanos;
        if self.stopping_since.is_none() {
            self.stopping_since = Some(now);
            self.net.stop_listening();
        }
        self.tell_all_away();
        let lingered = self.stopping_since.is_some_and(|since| now - since > LINGER_NANOS);
        let (mut owing, mut idle) = (false, Vec::new());
        for connection in self.exchange.open_connections() {
            let owed = connection.withheld > 0 || connection.asked.is_some() || connection.held;
            owing |= owed;
            if !owed && !connection.closing {
                idle.push(connection.id);
            }
        }
        for conn in idle {
            self.net.close(conn);
        }
        if (owing || self.net.connections() > 0) && !lingered {
            return false;
        }
        let wal = &mut self.exchange.intake.wal;
        if !lingered && (wal.is_syncing() || wal.writer.synced_through() < wal.writer.written()) {
            wal.begin_sync(&mut self.net);
            return false;
        }
        let stamp = self.exchange.intake.stamp();
        let position = self.exchange.intake.wal.writer.synced_through();
        let outbox = &mut self.exchange.intake.outbox;
        let everybody = 0..self.shared.shard_count();
        if everybody.clone().any(|executor| !outbox.to(executor).has_free(1)) {
            return false;
        }
        for executor in everybody {
            let sent = outbox.send(executor, ToStore::Stopped { position, stamp });
            debug_assert!(sent.is_ok(), "there was a place a moment ago, and only this loop uses them");
        }
        true
    }
}
