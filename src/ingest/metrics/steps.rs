//! The same decoder in steps, for bodies that are too large to be decoded in one go.
//!
//! ```text
//! take_text   the next 128 KiB are UTF-8
//! step        the next so many metrics of an array, or lines
//! ```
//!
//! Always: what comes of a body is what [`MetricsDecoder::decode`] makes of it, its refusals included. That one
//! is written out by itself because it is the way of every small body: carried from stage to stage, a single
//! metric took a third longer.

use super::fields::Fields;
use super::{
    ClientId, Decoded, Members, MetricError, MetricsDecoder, MetricsError, Pass, Repeat, Role, Shape,
    WRAPPED, Wrapped, end,
};
use crate::json::Reader;
use model::Batch;

/// Bytes that [`take_text`] looks at in one step, some 50 µs.
const TEXT_BYTES_PER_STEP: usize = 128 * 1024;

/// Appends the next bytes of a body to `text`, the part of it that is known to be UTF-8; `false` when that is
/// all of it. For bodies that are too large to be looked at in one step.
pub fn take_text(body: &[u8], text: &mut String) -> Result<bool, MetricsError> {
    let rest = body.get(text.len()..).unwrap_or_default();
    let piece = &rest[..rest.len().min(TEXT_BYTES_PER_STEP)];
    let valid = match std::str::from_utf8(piece) {
        Ok(valid) => valid,
        // A character that the next step will see whole.
        Err(error) if error.error_len().is_none() && piece.len() < rest.len() => {
            std::str::from_utf8(&piece[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            return Err(MetricsError::not_utf8(body, text.len() + error.valid_up_to()));
        }
    };
    text.push_str(valid);
    Ok(text.len() < body.len())
}

/// Bytes of metrics after which a step ends, some 50 µs: a metric may have 64 labels of 4 KiB.
const METRIC_BYTES_PER_STEP: usize = 64 * 1024;

/// A body that is decoded in steps. Dropped early it leaves any part of the body in the batch.
pub struct Decoding<'a> {
    pass: Pass<'a, 'a>,
    reader: Reader<'a>,
    stage: Stage,
}

/// How far a body is decoded.
enum Stage {
    Start,
    /// Within an array of metrics, bare or the `metrics` of the outermost object.
    Array {
        members: Members,
        is_first: bool,
        is_bare: bool,
    },
    /// Behind the first of many lines.
    Lines(Members),
    Done(Result<Shape, MetricsError>),
}

impl MetricsDecoder {
    /// Begins to decode a body in steps.
    pub fn begin<'a>(&'a mut self, body: &'a str, batch: &'a mut Batch) -> Decoding<'a> {
        batch.clear();
        self.client_id.clear();
        self.repeats.begin(Repeat::NONE);
        let pass = Pass { decoder: self, batch, client_id: ClientId::Absent };
        Decoding { pass, reader: Reader::new(body), stage: Stage::Start }
    }
}

impl<'a> Decoding<'a> {
    /// Decodes `metrics_max` metrics at most, a fraction of a microsecond each, and ends behind the first that passes
    /// 64 KiB; `false` when all is decoded. One value that nobody asks for is passed in one step, however long it is.
    pub fn step(&mut self, metrics_max: usize) -> bool {
        let stage = std::mem::replace(&mut self.stage, Stage::Start);
        self.stage = self.go_on(stage, metrics_max);
        !matches!(self.stage, Stage::Done(_))
    }

    /// What the body was; whatever of it is left is decoded at once.
    pub fn finish(mut self) -> Result<Decoded<'a>, MetricsError> {
        let shape = loop {
            match std::mem::replace(&mut self.stage, Stage::Start) {
                Stage::Done(shape) => break shape,
                stage => self.stage = self.go_on(stage, usize::MAX),
            }
        };
        let Pass { decoder, batch, client_id } = self.pass;
        let decoded = shape.and_then(|shape| match client_id {
            ClientId::Wrong(error) => Err(MetricsError::ClientId(error)),
            ClientId::InBody(id) => Ok((shape, Some(id))),
            ClientId::Unescaped => Ok((shape, Some(decoder.client_id.as_str()))),
            ClientId::Absent => Ok((shape, None)),
        });
        match decoded {
            Ok((shape, id)) => Ok(Decoded { shape, client_id: id.filter(|id| !id.is_empty()) }),
            Err(error) => {
                batch.clear();
                Err(error)
            }
        }
    }

    fn go_on(&mut self, stage: Stage, metrics_max: usize) -> Stage {
        let next = match stage {
            Stage::Start => self.start(),
            Stage::Array { members, is_first, is_bare } => {
                self.array(members, is_first, is_bare, metrics_max)
            }
            Stage::Lines(members) => self.lines(members, metrics_max),
            Stage::Done(shape) => return Stage::Done(shape),
        };
        next.unwrap_or_else(|error| Stage::Done(Err(error)))
    }

    fn start(&mut self) -> Result<Stage, MetricsError> {
        self.reader.skip_space();
        match self.reader.peek() {
            Some(b'{') => {
                let mut fields = Fields::default();
                let wrapped = self.pass.object::<true>(&mut self.reader, Role::Outer, &mut fields)?;
                self.after_keys(wrapped, None, &fields)
            }
            Some(b'[') => Ok(self.enter_array(true)),
            // A value or none at all: nothing that takes steps.
            _ => Ok(Stage::Done(self.pass.body(self.reader.body().as_bytes()))),
        }
    }

    /// The keys of the outermost object were read so far; `members` are its `metrics` if there were any before.
    fn after_keys(
        &mut self,
        wrapped: Wrapped,
        members: Option<Members>,
        fields: &Fields,
    ) -> Result<Stage, MetricsError> {
        let members = match (wrapped, members) {
            (Wrapped::Ahead, _) => return Ok(self.enter_array(false)),
            (Wrapped::NotAnArray { offset }, _) => {
                end(&mut self.reader)?;
                return Err(MetricsError::Shape { offset, expected: WRAPPED });
            }
            (Wrapped::Members(members), _) | (Wrapped::Nothing, Some(members)) => members,
            (Wrapped::Nothing, None) => return Ok(self.after_first(fields)),
        };
        end(&mut self.reader)?;
        Ok(Stage::Done(members.judge()))
    }

    /// The outermost object was a metric: the only one, or the first of many lines.
    fn after_first(&mut self, fields: &Fields) -> Stage {
        let first = self.pass.push(self.reader.body(), fields);
        self.reader.skip_space();
        if self.reader.peek().is_none() {
            return Stage::Done(match first {
                Ok(()) => Ok(Shape::Single),
                Err(MetricError::Missing { key }) => Err(MetricsError::Missing { key }),
                Err(error) => Err(MetricsError::Metric { index: None, error }),
            });
        }
        let mut members = Members::default();
        members.note(first);
        Stage::Lines(members)
    }

    fn lines(&mut self, mut members: Members, metrics_max: usize) -> Result<Stage, MetricsError> {
        let Decoding { pass, reader, .. } = self;
        let step_end = reader.offset().saturating_add(METRIC_BYTES_PER_STEP);
        for _ in 0..metrics_max {
            if reader.offset() >= step_end {
                break;
            }
            match reader.peek() {
                Some(b'{') => {}
                Some(_) => {
                    return Err(reader.expected("another metric object or the end of the body").into());
                }
                None => return Ok(Stage::Done(members.judge())),
            }
            members.note(pass.metric(reader, Role::Member)?);
            reader.skip_space();
        }
        Ok(Stage::Lines(members))
    }

    /// What an earlier array of this body left is forgotten: of a repeated key the last one counts.
    fn enter_array(&mut self, is_bare: bool) -> Stage {
        self.pass.batch.clear();
        self.reader.enter();
        Stage::Array { members: Members::default(), is_first: true, is_bare }
    }

    /// The next metrics of an array; those before the first refused one are in the batch.
    fn array(
        &mut self,
        mut members: Members,
        mut is_first: bool,
        is_bare: bool,
        metrics_max: usize,
    ) -> Result<Stage, MetricsError> {
        let Decoding { pass, reader, .. } = self;
        let step_end = reader.offset().saturating_add(METRIC_BYTES_PER_STEP);
        for _ in 0..metrics_max {
            if reader.offset() >= step_end {
                break;
            }
            if !reader.next_element(&mut is_first)? {
                if is_bare {
                    end(reader)?;
                    return Ok(Stage::Done(members.judge()));
                }
                // What the outermost object says as a metric is lost by its `metrics`, and unimportant.
                let mut fields = Fields::default();
                let wrapped = pass.keys::<true>(reader, Role::Outer, &mut fields, false)?;
                return self.after_keys(wrapped, Some(members), &fields);
            }
            let role = if is_bare && members.seen == 0 { Role::First } else { Role::Member };
            let outcome = pass.metric(reader, role)?;
            members.note(outcome);
        }
        Ok(Stage::Array { members, is_first, is_bare })
    }
}
