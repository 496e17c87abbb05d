//! One request and its answer: by its route, here and now, or later by what is asked elsewhere.
//!
//! Always: every request is answered once, in the order of its connection; what is asked of the executor waits on the
//! connection (`Asked`).
//! Not here: what becomes of a body with samples (`body.rs`), how an answer looks (`reply.rs`).

use super::{Exchange, Flow};
use crate::alerts::AlertsQuery;
use crate::api::{self, IntakeError, Refusal, RefusalShape, Route};
use crate::config::Durability;
use crate::delete_series::DeleteSeries;
use crate::fan_in::{Inquiry, QueryAnswer, QueryError};
use crate::front::connection::{Asked, Awaited, ExportStream};
use crate::front::gate::Gate;
use crate::front::rate_limit::Verdict;
use crate::front::reply::{LogEntry, Payload, Reply};
use crate::front::withheld::Pending;
use crate::own_metrics;
use crate::tsdb_status::TsdbStatus;
use http::{Method, Request};
use query::Query;
use shard::net::ConnId;
use std::borrow::Cow;

impl Exchange {
    /// Decides the answer to one request.
    pub(super) fn answer(&mut self, id: ConnId, request: Request<'_>) -> Flow {
        self.shared.shards[self.index].front.requests.add(1);
        let head_only = request.method == Method::Head;
        let mut connection = request.connection;
        if self.shared.is_stopping() {
            connection = http::Connection::Close;
        }
        let log = self.log_entry(&request);
        let route = api::route(request.method, request.path);
        let any_origin = api::any_origin(request.method, &route);
        let shape = api::refusal_shape(request.path);
        let refused = |refusal| (Payload::Refused(Refusal { shape, ..refusal }), Durability::Memory);
        let (payload, level) = match route {
            Ok(Route::Ingest(door)) if self.gate == Gate::Refusing => {
                self.refused(IntakeError::Overloaded, door)
            }
            Ok(Route::Ingest(door)) => match self.terms(door, &request) {
                Ok(terms) => {
                    let verdict = self.limit(id, &terms);
                    let decided = match verdict {
                        Verdict::Pass { .. } => self.ingest(id, request.body, &terms).map_err(Some),
                        Verdict::Wait => Err(None),
                        verdict => Ok(self.beyond_limit(verdict, door)),
                    };
                    match decided {
                        Ok(decided) => decided,
                        Err(not_now) => {
                            let body = not_now.map(|not_now| not_now.body(request.body, terms.coding));
                            let has_room = match &body {
                                None => self.may_await_portion(request.body),
                                Some(body) => self.may_hand_over(body),
                            };
                            if has_room {
                                let (arrived_nanos, log, terms) = (self.now.nanos, log, terms.into_owned());
                                let asked =
                                    |awaited| Asked { head_only, connection, arrived_nanos, log, awaited };
                                match body {
                                    None => self.await_portion(id, request.body, terms, asked),
                                    Some(body) => self.hand_over(id, body, terms, asked),
                                }
                                return Flow::Wait;
                            }
                            self.refused(IntakeError::Overloaded, door)
                        }
                    }
                }
                Err(refusal) => {
                    let refusal = Refusal { shape: door.refusal_shape(), ..refusal };
                    (Payload::Refused(refusal), Durability::Memory)
                }
            },
            Ok(Route::Export) => match self.export(&request) {
                Ok(page) => {
                    self.pages.push((id, Box::new(page)));
                    let awaited = Awaited::Export(ExportStream::new(request.minor_version > 0));
                    let arrived_nanos = self.now.nanos;
                    return self.wait(id, Asked { head_only, connection, arrived_nanos, log, awaited });
                }
                Err(refusal) => refused(refusal),
            },
            Ok(
                route @ (Route::Query(_)
                | Route::Alerts
                | Route::DeleteSeries
                | Route::Snapshot
                | Route::CleanTombstones
                | Route::StorageStatus
                | Route::TsdbStatus),
            ) => match self.inquiry(route, &request) {
                Ok(inquiry) => {
                    self.questions.push((id, Box::new(inquiry)));
                    let (awaited, arrived_nanos) = (Awaited::Answer { any_origin, shape }, self.now.nanos);
                    return self.wait(id, Asked { head_only, connection, arrived_nanos, log, awaited });
                }
                Err(refusal) => refused(refusal),
            },
            Ok(route) => {
                let payload = self.read(route, &request);
                if let Payload::Body { bytes, .. } = &payload {
                    self.decoded_bytes += bytes.len();
                }
                (payload, Durability::Memory)
            }
            Err(refusal) => refused(refusal),
        };
        let arrived_nanos = self.now.nanos;
        self.queue(Reply { conn: id, head_only, connection, payload, any_origin, arrived_nanos, log }, level)
    }

    /// One more waits for executors.
    fn wait(&mut self, id: ConnId, asked: Asked) -> Flow {
        self.asked += 1;
        if let Some(held) = self.connection(id) {
            held.asked = Some(Box::new(asked));
        }
        Flow::Wait
    }

    fn log_entry(&self, request: &Request<'_>) -> Option<Box<LogEntry>> {
        self.shared.config.access_log.then(|| {
            let separator = if request.query.is_empty() { "" } else { "?" };
            let method = request.method.name();
            Box::new(LogEntry { request: format!("{method} {}{separator}{}", request.path, request.query) })
        })
    }

    /// The parameters of a question, if one more may be asked now.
    pub(super) fn question_parameters<'b>(
        &self,
        request: &Request<'b>,
    ) -> Result<impl Iterator<Item = (Cow<'b, str>, Cow<'b, str>)> + use<'b>, Refusal> {
        if !self.is_ready {
            return Err(QueryError::Starting.into());
        }
        let concurrency = self.shared.config.query_concurrency;
        if self.asked >= concurrency {
            return Err(QueryError::TooMany { concurrency }.into());
        }
        let mut pairs = Vec::new();
        for pair in http::parameters(request.query) {
            pairs.push(pair.map_err(Refusal::from)?);
        }
        Ok(pairs.into_iter())
    }

    fn inquiry(&self, route: Route, request: &Request<'_>) -> Result<Inquiry, Refusal> {
        let pairs = self.question_parameters(request)?;
        let inquiry = match route {
            Route::Query(endpoint) => Inquiry::Samples(Query::from_parameters(endpoint, pairs)?),
            Route::DeleteSeries | Route::Snapshot | Route::CleanTombstones
                if !self.shared.config.enable_admin =>
            {
                return Err(Refusal::admin_disabled());
            }
            Route::Snapshot => Inquiry::Snapshot,
            Route::CleanTombstones => Inquiry::CleanTombstones,
            Route::StorageStatus => Inquiry::StorageStatus,
            Route::DeleteSeries => Inquiry::Delete(DeleteSeries::from_parameters(pairs)?),
            Route::TsdbStatus => Inquiry::Cardinality(TsdbStatus::from_parameters(pairs)?),
            _ => Inquiry::Alerts(AlertsQuery::from_parameters(pairs)?),
        };
        Ok(inquiry)
    }

    fn read(&self, route: Route, request: &Request<'_>) -> Payload {
        const JSON: &str = "application/json";
        const TEXT: &str = "text/plain; charset=utf-8";
        let body =
            |status, content_type, bytes: &[u8]| Payload::Body { status, content_type, bytes: bytes.into() };
        match route {
            Route::Options(methods) => Payload::Allow(methods),
            Route::Index => body(200, TEXT, api::INDEX.as_bytes()),
            Route::Ping => body(204, "", b""),
            Route::Alive => body(200, TEXT, b"ringwatch is up\n"),
            Route::Ready if self.shared.is_ready() && !self.shared.is_stopping() => {
                body(200, TEXT, b"ringwatch is ready\n")
            }
            Route::Ready => body(503, TEXT, b"ringwatch is replaying its journal, or stopping\n"),
            Route::Health => {
                let (status, bytes) = self.health();
                body(status, JSON, bytes.as_bytes())
            }
            Route::OwnMetrics if accepts_json(request) => {
                body(200, JSON, own_metrics::json(&self.shared).as_bytes())
            }
            _ => body(200, own_metrics::CONTENT_TYPE, own_metrics::text(&self.shared).as_bytes()),
        }
    }

    fn health(&self) -> (u16, String) {
        let depth = self.shared.queue_depth();
        let unhealthy = |reason: &str| {
            let mut quoted = Vec::new();
            query::json::write_text(reason, &mut quoted);
            let reason = String::from_utf8_lossy(&quoted);
            (503, format!(r#"{{"status":"unhealthy","queue_size":{depth},"reason":{reason}}}"#))
        };
        if self.shared.is_stopping() {
            unhealthy("shutting down")
        } else if !self.is_ready {
            unhealthy("the journal is being replayed")
        } else if self.is_out_of_journal() {
            unhealthy("the disk refuses writes")
        } else if let Some(cause) = self.intake.admissions.closed() {
            unhealthy(cause)
        } else {
            (200, format!(r#"{{"status":"healthy","queue_size":{depth}}}"#))
        }
    }

    /// An executor has answered a query.
    pub fn answered(&mut self, id: ConnId, answer: Result<QueryAnswer, QueryError>) {
        self.asked -= 1;
        let Some(asked) = self.connection(id).and_then(|held| held.asked.take()) else { return };
        let (any_origin, shape) = match asked.awaited {
            Awaited::Answer { any_origin, shape } => (any_origin, shape),
            _ => (false, RefusalShape::default()),
        };
        let payload = match answer {
            Ok(QueryAnswer { body: None, .. }) => Payload::Done,
            Ok(QueryAnswer { body: Some(bytes), warnings }) if !warnings.is_empty() => {
                Payload::Incomplete { content_type: "application/json", bytes, warnings }
            }
            Ok(QueryAnswer { body: Some(bytes), .. }) => {
                Payload::Body { status: 200, content_type: "application/json", bytes }
            }
            Err(error) => Payload::Refused(Refusal { shape, ..error.into() }),
        };
        self.queue(asked.reply(id, payload, any_origin), Durability::Memory);
    }

    pub(super) fn reply(
        &mut self,
        id: ConnId,
        head_only: bool,
        connection: http::Connection,
        payload: Payload,
    ) {
        let (any_origin, arrived_nanos, log) = (false, self.now.nanos, None);
        let reply = Reply { conn: id, head_only, connection, payload, any_origin, arrived_nanos, log };
        self.queue(reply, Durability::Memory);
    }

    /// Lines an answer up behind those before it, to go once its level is reached; after the last one nothing more
    /// is read from its client.
    pub(super) fn queue(&mut self, reply: Reply, level: Durability) -> Flow {
        let (id, closes) = (reply.conn, reply.closes());
        let frame = self.intake.open_frame();
        self.replies.push(Pending { reply, level, frame });
        if closes {
            self.stop_reading(id);
            return Flow::Wait;
        }
        Flow::Next
    }

    /// The last answer on a connection that cannot go on, to the request of which it has sent a part.
    pub fn refuse_unfinished(&mut self, id: ConnId, refusal: Refusal) {
        let begun = self.take_unfinished(id).map_or_else(Vec::new, |unfinished| unfinished.bytes);
        self.refuse_for_good(id, &begun, refusal);
    }

    /// The same to a request that begins with these bytes.
    pub fn refuse_for_good(&mut self, id: ConnId, request: &[u8], refusal: Refusal) {
        let shape = api::refusal_shape_of_begun(request);
        let refusal = Refusal { close: true, shape, ..refusal };
        self.reply(id, false, http::Connection::Close, Payload::Refused(refusal));
    }

    fn stop_reading(&mut self, id: ConnId) {
        if let Some(connection) = self.connection(id) {
            connection.closing = true;
            self.take_unfinished(id);
        }
    }
}

fn accepts_json(request: &Request<'_>) -> bool {
    let accept = request.header("accept").unwrap_or_default();
    accept.windows(16).any(|window| window.eq_ignore_ascii_case(b"application/json"))
}
