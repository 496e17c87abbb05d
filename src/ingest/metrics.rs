//! Bodies of `POST /metrics` (SPEC §2.1): one metric, a batch of them, or one a line.
//!
//! ```text
//!   {"name":…,"value":…}              one metric
//!   {"metrics":[{…},{…}]}             a batch: any object with the key `metrics` is one
//!   [{…},{…}]                         a batch
//!   {…}⏎{…}⏎                          a batch, whatever the Content-Type says: past a whole first object
//!                                     another one begins; a newline at the end makes no batch
//! ```
//!
//! One pass over the body straight into the rows of the batch; no tree is built.
//! Always: a text that is no JSON is told as such before anything that is wrong with a metric, wherever the two
//! stand; of a repeated key the last one counts, also where an earlier one could not have been taken;
//! an optional key with `null` counts as absent.
//! The client id is the outermost object's; an array and lines have none, so there it is the first metric's.
//!
//! Why not simd-json: for one small body it is slower (its first pass over the whole text is made for long ones),
//! it wants the bytes for itself, and it cannot tell what it expected where.
//! Nanoseconds a body, label sets canonicalised, on a shared two-core virtual machine (AVX-512), least of some runs:
//!
//! ```text
//!   cargo bench -p ingest --bench metrics_json        ours   simd-json   its tape   serde_json
//!   {"name":"cpu_usage","value":85}     31 bytes        71         141         86          107
//!   with two tags and a timestamp      108 bytes        87         303        160          303
//!   a batch of 100 such             11,003 bytes     5,100      26,900     13,000       33,100
//!   the same, always other tags                     29,900      28,200     14,000       34,000
//!   100 of 64 senders in turns       8,413 bytes     3,300      15,600     10,800       19,900
//! ```
//!
//! Of ours all but the fourth come again with other numbers, and no more is read of them (`repeats.rs`).
//! The other two read into borrowed structs of just these keys, with no rule of ours checked; simd-json's tape alone is
//! what it knows before anybody reads it.
//!
//! Not here: the clock, retention and future bounds (`bounds.rs`, asked by the server), HTTP statuses.
//! Read next: `metrics/fields.rs` for the keys of a metric, `metrics/repeats.rs` for labels that were read before and
//! `metrics/template.rs` for whole metrics, `metrics/steps.rs` for large bodies, `metrics/error.rs` for every refusal,
//! `metrics/measurement.rs` for JSON on `POST /write`, `json.rs` for the reader, `metrics/tests.rs` for examples.

mod fields;

mod repeats;
pub use repeats::{Repeat, SEEN_MAX as REPEATS_MAX};

mod template;

mod measurement;

mod steps;
pub use steps::{Decoding, take_text};

mod error;
pub use error::{ClientIdError, MetricError, MetricsError, TimestampError, ValueError};

use crate::json::{Begins, Reader, SyntaxError, Text};
use fields::{
    Column, Fields, LabelsError, LabelsField, LabelsRead, NotText, kind, read_labels, text, timestamp, value,
};
use model::{Batch, LabelError, LabelSetBuilder};
use repeats::Repeats;
use template::Reading;

/// Bytes of a client id at most.
pub const CLIENT_ID_BYTES_MAX: usize = 255;

/// Decodes bodies of `POST /metrics`. Kept by a loop and reused: it holds nothing but memory for work, and the
/// labels that senders are expected to repeat.
#[derive(Debug)]
pub struct MetricsDecoder {
    /// Strings of the metric at hand that had escapes.
    unescaped: String,
    tags: Vec<(Text, Text)>,
    labels: Vec<(Text, Text)>,
    builder: LabelSetBuilder,
    /// A client id that had escapes.
    client_id: String,
    repeats: Repeats,
    names_repeats: bool,
}

/// What a body was, besides the samples that are in the batch now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Which of the two answers it gets.
    pub shape: Shape,
    /// The partition key, if the body names one and no header does; never empty.
    pub client_id: Option<&'a str>,
}

/// Whether the client sent one metric or a batch; a batch may hold one metric too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Answered without a count.
    Single,
    /// Answered with the count.
    Batch,
}

/// Where an object stands that may be a metric, and so which keys besides a metric's own count in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The outermost object: a metric, or the wrapper of a batch. Its client id counts.
    Outer,
    /// The first of a bare array. Its client id counts.
    First,
    /// A metric and nothing else.
    Member,
}

/// The client id of the body, judged once the body is known to be JSON.
#[derive(Clone, Copy)]
enum ClientId<'b> {
    Absent,
    InBody(&'b str),
    Unescaped,
    Wrong(ClientIdError),
}

/// What became of the `metrics` of the outermost object.
enum Wrapped {
    /// There was no such key: the object is a metric.
    Nothing,
    Members(Members),
    NotAnArray {
        offset: usize,
    },
    /// Its array begins here and was not entered.
    Ahead,
}

/// The metrics of a batch: how many came by, and the first that cannot be taken.
#[derive(Default)]
struct Members {
    seen: usize,
    refused: Option<(usize, MetricError)>,
}

impl MetricsDecoder {
    /// A decoder that remembers nothing yet. The seed keeps a client from choosing labels that collide.
    pub fn new(seed: u64) -> MetricsDecoder {
        MetricsDecoder {
            unescaped: String::new(),
            tags: Vec::new(),
            labels: Vec::new(),
            builder: LabelSetBuilder::default(),
            client_id: String::new(),
            repeats: Repeats::new(seed),
            names_repeats: false,
        }
    }

    /// The same, for who reads the batches of this decoder and no other: they say by which [`model::RepeatId`] it
    /// remembers a label set.
    pub fn naming_repeats(seed: u64) -> MetricsDecoder {
        MetricsDecoder { names_repeats: true, ..MetricsDecoder::new(seed) }
    }

    /// Decodes a whole body into `batch`, which it empties first and leaves empty on any refusal.
    ///
    /// The rows carry what the client said; whether their times are taken is for [`crate::TimeBounds`].
    /// `body` is read in place: at most as many bytes as it has are kept for work, and no more than that
    /// goes into the batch. `repeat` is kept per sender: what its last body began with goes in, what this one
    /// begins with comes out.
    pub fn decode<'a>(
        &'a mut self,
        body: &'a [u8],
        batch: &mut Batch,
        repeat: &mut Repeat,
    ) -> Result<Decoded<'a>, MetricsError> {
        batch.clear();
        self.client_id.clear();
        self.repeats.begin(*repeat);
        let mut pass = Pass { decoder: self, batch, client_id: ClientId::Absent };
        let decoded = pass.body(body).and_then(|shape| match pass.client_id {
            ClientId::Wrong(error) => Err(MetricsError::ClientId(error)),
            client_id => Ok((shape, client_id)),
        });
        *repeat = self.repeats.first();
        match decoded {
            Ok((shape, client_id)) => {
                let client_id = match client_id {
                    ClientId::InBody(id) => Some(id),
                    ClientId::Unescaped => Some(self.client_id.as_str()),
                    ClientId::Absent | ClientId::Wrong(_) => None,
                };
                Ok(Decoded { shape, client_id: client_id.filter(|id| !id.is_empty()) })
            }
            Err(error) => {
                batch.clear();
                Err(error)
            }
        }
    }
}

/// One body on its way into a batch.
struct Pass<'d, 'b> {
    decoder: &'d mut MetricsDecoder,
    batch: &'d mut Batch,
    client_id: ClientId<'b>,
}

const BODY: &str = "a metric object or an array of metrics";
const WRAPPED: &str = "an array of metrics";
const END: &str = "the end of the body";

impl<'b> Pass<'_, 'b> {
    fn body(&mut self, body: &'b [u8]) -> Result<Shape, MetricsError> {
        let text =
            std::str::from_utf8(body).map_err(|error| MetricsError::not_utf8(body, error.valid_up_to()))?;
        let mut reader = Reader::new(text);
        reader.skip_space();
        match reader.peek() {
            Some(b'{') => self.objects(&mut reader),
            Some(b'[') => {
                let members = self.array(&mut reader, Role::First)?;
                end(&mut reader)?;
                members.judge()
            }
            Some(_) if text.starts_with('\u{feff}') => {
                Err(reader.expected("JSON without a byte order mark").into())
            }
            Some(_) if reader.begins().is_err() => Err(reader.expected(BODY).into()),
            Some(_) => {
                let offset = reader.offset();
                reader.skip_value(&mut self.decoder.unescaped)?;
                end(&mut reader)?;
                Err(MetricsError::Shape { offset, expected: BODY })
            }
            None => Err(reader.expected(BODY).into()),
        }
    }

    /// A body that begins with an object: a metric, a wrapped batch, or the first of many lines.
    fn objects(&mut self, reader: &mut Reader<'b>) -> Result<Shape, MetricsError> {
        let first = if self.repeated(reader) {
            Ok(())
        } else {
            let mut fields = Fields::default();
            match self.object::<false>(reader, Role::Outer, &mut fields)? {
                Wrapped::Nothing => {}
                Wrapped::Members(members) => {
                    end(reader)?;
                    return members.judge();
                }
                Wrapped::NotAnArray { offset } => {
                    end(reader)?;
                    return Err(MetricsError::Shape { offset, expected: WRAPPED });
                }
                Wrapped::Ahead => unreachable!("only a reading in steps stops there"),
            }
            self.push(reader.body(), &fields)
        };
        reader.skip_space();
        if reader.peek().is_none() {
            return match first {
                Ok(()) => Ok(Shape::Single),
                Err(MetricError::Missing { key }) => Err(MetricsError::Missing { key }),
                Err(error) => Err(MetricsError::Metric { index: None, error }),
            };
        }
        let mut members = Members::default();
        members.note(first);
        while let Some(byte) = reader.peek() {
            if byte != b'{' {
                return Err(reader.expected("another metric object or the end of the body").into());
            }
            members.note(self.metric(reader, Role::Member)?);
            reader.skip_space();
        }
        members.judge()
    }

    /// The metrics of the array that begins here; those before the first refused one are in the batch.
    fn array(&mut self, reader: &mut Reader<'b>, first: Role) -> Result<Members, SyntaxError> {
        self.batch.clear();
        let mut members = Members::default();
        let mut is_first = true;
        reader.enter();
        while reader.next_element(&mut is_first)? {
            let role = if members.seen == 0 { first } else { Role::Member };
            let outcome = self.metric(reader, role)?;
            members.note(outcome);
        }
        Ok(members)
    }

    /// The metric of a batch that begins here; what is wrong with it if it is not added.
    #[inline]
    fn metric(
        &mut self,
        reader: &mut Reader<'b>,
        role: Role,
    ) -> Result<Result<(), MetricError>, SyntaxError> {
        if self.repeated(reader) {
            return Ok(Ok(()));
        }
        if reader.begins()? != Begins::Object {
            reader.skip_value(&mut self.decoder.unescaped)?;
            return Ok(Err(MetricError::NotAnObject));
        }
        let mut fields = Fields::default();
        self.object::<false>(reader, role, &mut fields)?;
        Ok(self.push(reader.body(), &fields))
    }

    /// Passes the object that begins here and adds its metric, if both were expected: the same in every role.
    #[inline]
    fn repeated(&mut self, reader: &mut Reader<'b>) -> bool {
        let Some((reading, known)) = self.decoder.repeats.read(reader) else { return false };
        let Reading { value, timestamp, kind } = reading;
        let repeat = self.decoder.names_repeats.then_some(known.repeat);
        self.batch.push_repeat(known.labels, repeat, kind, timestamp, value);
        true
    }

    /// The object that begins here, to its end; `fields` come empty and leave with what it says as a metric.
    /// With `STOPS`, only to the array of its `metrics`.
    #[inline]
    fn object<const STOPS: bool>(
        &mut self,
        reader: &mut Reader<'b>,
        role: Role,
        fields: &mut Fields,
    ) -> Result<Wrapped, SyntaxError> {
        self.decoder.unescaped.clear();
        self.decoder.tags.clear();
        self.decoder.labels.clear();
        let start = reader.offset();
        reader.enter();
        let wrapped = self.keys::<STOPS>(reader, role, fields, true);
        fields.object = start..reader.offset();
        wrapped
    }

    /// The keys that are left of an object.
    #[inline(always)]
    fn keys<const STOPS: bool>(
        &mut self,
        reader: &mut Reader<'b>,
        role: Role,
        fields: &mut Fields,
        mut is_first: bool,
    ) -> Result<Wrapped, SyntaxError> {
        let mut wrapped = Wrapped::Nothing;
        loop {
            let unescaped = &mut self.decoder.unescaped;
            let kept = unescaped.len();
            let Some(key) = reader.next_key(&mut is_first, unescaped)? else { break };
            let key = Key::of(key.get(reader.body(), unescaped));
            unescaped.truncate(kept);
            match key {
                Key::Name => fields.name = Some(text(reader, unescaped)?.ok_or(NotText)),
                Key::Value => fields.value = Some(value(reader, unescaped)?),
                Key::Timestamp => fields.timestamp = timestamp(reader, unescaped)?,
                Key::Type => fields.kind = kind(reader, unescaped)?,
                Key::Tags => fields.tags = self.decoder.labels_field(reader, Column::Tags)?,
                Key::Labels => fields.labels = self.decoder.labels_field(reader, Column::Labels)?,
                Key::ClientId if role != Role::Member => self.client_id(reader)?,
                Key::Metrics if role == Role::Outer => {
                    if STOPS && reader.begins()? == Begins::Array {
                        return Ok(Wrapped::Ahead);
                    }
                    wrapped = self.wrapped(reader)?;
                }
                Key::ClientId | Key::Metrics | Key::Unknown => reader.skip_value(unescaped)?,
            }
        }
        Ok(wrapped)
    }

    /// The value of `metrics`. What the outermost object said as a metric is lost by it, and unimportant.
    #[cold]
    fn wrapped(&mut self, reader: &mut Reader<'b>) -> Result<Wrapped, SyntaxError> {
        if reader.begins()? == Begins::Array {
            return Ok(Wrapped::Members(self.array(reader, Role::Member)?));
        }
        let offset = reader.offset();
        reader.skip_value(&mut self.decoder.unescaped)?;
        Ok(Wrapped::NotAnArray { offset })
    }

    #[cold]
    fn client_id(&mut self, reader: &mut Reader<'b>) -> Result<(), SyntaxError> {
        let MetricsDecoder { unescaped, client_id: own, .. } = &mut *self.decoder;
        let is_null = reader.begins()? == Begins::Null;
        let kept = unescaped.len();
        self.client_id = match text(reader, unescaped)? {
            None if is_null => ClientId::Absent,
            None => ClientId::Wrong(ClientIdError::NotText),
            Some(id) => {
                let characters = id.get(reader.body(), unescaped);
                if characters.len() > CLIENT_ID_BYTES_MAX {
                    ClientId::Wrong(ClientIdError::TooLong)
                } else if let Some(id) = id.in_body(reader.body()) {
                    ClientId::InBody(id)
                } else {
                    own.clear();
                    own.push_str(characters);
                    ClientId::Unescaped
                }
            }
        };
        unescaped.truncate(kept);
        Ok(())
    }

    /// Adds the metric to the batch, or says what is wrong with it.
    #[inline]
    fn push(&mut self, body: &str, fields: &Fields) -> Result<(), MetricError> {
        let MetricsDecoder { unescaped, repeats, names_repeats, .. } = &mut *self.decoder;
        let name = fields.name.ok_or(MetricError::Missing { key: "name" })?;
        let value = fields.value.ok_or(MetricError::Missing { key: "value" })?;
        let name = name.map_err(|NotText| MetricError::NameNotText)?;
        let may_be_known = match (&fields.tags, &fields.labels) {
            (LabelsField::Repeated(_), LabelsField::Absent)
            | (LabelsField::Absent, LabelsField::Repeated(_)) => true,
            (LabelsField::Absent, LabelsField::Absent) => repeats.expects_none(),
            _ => false,
        };
        if may_be_known && let Some(known) = repeats.take(name.get(body, unescaped)) {
            let (value, timestamp, kind) = fields.rest(value)?;
            let repeat = names_repeats.then_some(known.repeat);
            self.batch.push_repeat(known.labels, repeat, kind, timestamp, value);
            repeats.learn(&body[fields.object.clone()], kind);
            return Ok(());
        }
        self.push_read(body, fields, name, value)
    }

    /// The same for a metric whose labels are none, or not known by their text.
    fn push_read(
        &mut self,
        body: &str,
        fields: &Fields,
        name: Text,
        value: Result<f64, ValueError>,
    ) -> Result<(), MetricError> {
        let MetricsDecoder { unescaped, tags, labels, builder, repeats, .. } = &mut *self.decoder;
        // What looked like a repeat belongs to another name, or has a second object of labels beside it.
        for (field, column) in [(&fields.tags, &mut *tags), (&fields.labels, &mut *labels)] {
            if let LabelsField::Repeated(at) = field {
                let mut reader = Reader::at(body, at.start);
                let read = read_labels(&mut reader, unescaped, column);
                debug_assert!(matches!(read, Ok(LabelsRead::Taken)), "it was taken when it was first read");
            }
        }
        let get = |text: Text| text.get(body, unescaped);
        builder.begin(get(name)).map_err(MetricError::Label)?;
        let (value, timestamp, kind) = fields.rest(value)?;
        for (key, field) in [("tags", &fields.tags), ("labels", &fields.labels)] {
            match field {
                LabelsField::Wrong(LabelsError::NotAnObject) => {
                    return Err(MetricError::LabelsNotAnObject { key });
                }
                LabelsField::Wrong(LabelsError::TooMany) => {
                    return Err(MetricError::Label(LabelError::TooManyLabels));
                }
                LabelsField::Wrong(LabelsError::ValueNotText { label }) => {
                    return Err(MetricError::LabelValueNotText { label: get(*label).to_owned() });
                }
                LabelsField::Absent | LabelsField::Read(_) | LabelsField::Repeated(_) => {}
            }
        }
        for &(name, value) in &*tags {
            builder.push(get(name), get(value)).map_err(MetricError::Label)?;
        }
        for &(name, value) in &*labels {
            // The same label in both words is said once; with another value the builder refuses it.
            let is_tag = |&(tag, of): &(Text, Text)| get(tag) == get(name) && get(of) == get(value);
            if !tags.iter().any(is_tag) {
                builder.push(get(name), get(value)).map_err(MetricError::Label)?;
            }
        }
        self.batch
            .push(|out| builder.finish_into(out), kind, timestamp, value)
            .map_err(MetricError::Label)?;
        let json = match (&fields.tags, &fields.labels) {
            (LabelsField::Read(at) | LabelsField::Repeated(at), LabelsField::Absent)
            | (LabelsField::Absent, LabelsField::Read(at) | LabelsField::Repeated(at)) => &body[at.clone()],
            (LabelsField::Absent, LabelsField::Absent) => "",
            _ => return Ok(()),
        };
        repeats.remember(get(name), json, self.batch.last_labels());
        Ok(())
    }
}

/// The keys that count.
enum Key {
    Name,
    Value,
    Timestamp,
    Type,
    Tags,
    Labels,
    ClientId,
    Metrics,
    Unknown,
}

impl Key {
    #[inline]
    fn of(key: &str) -> Key {
        match key {
            "name" => Key::Name,
            "value" => Key::Value,
            "timestamp" => Key::Timestamp,
            "type" => Key::Type,
            "tags" => Key::Tags,
            "labels" => Key::Labels,
            "client_id" => Key::ClientId,
            "metrics" => Key::Metrics,
            _ => Key::Unknown,
        }
    }
}

impl Members {
    fn note(&mut self, outcome: Result<(), MetricError>) {
        if let Err(error) = outcome
            && self.refused.is_none()
        {
            self.refused = Some((self.seen, error));
        }
        self.seen += 1;
    }

    fn judge(self) -> Result<Shape, MetricsError> {
        match self.refused {
            Some((index, error)) => Err(MetricsError::Metric { index: Some(index), error }),
            None if self.seen == 0 => Err(MetricsError::EmptyBatch),
            None => Ok(Shape::Batch),
        }
    }
}

impl From<SyntaxError> for MetricsError {
    fn from(SyntaxError { offset, expected }: SyntaxError) -> MetricsError {
        MetricsError::Syntax { offset, expected }
    }
}

fn end(reader: &mut Reader<'_>) -> Result<(), SyntaxError> {
    reader.skip_space();
    if reader.peek().is_some() { Err(reader.expected(END)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
