//! Bodies of `POST /api/v1/write` (SPEC §2.4): Prometheus remote write 1.0, made plain.
//!
//! ```text
//!   WriteRequest  1 series, many   3 metadata, many: counted and passed
//!   series        1 labels, many   2 samples, many   3 exemplars, 4 histograms: counted and passed
//!   label         1 name, 2 value: text              sample  1 value: double, 2 timestamp: milliseconds
//! ```
//!
//! One walk over the bytes, straight into the rows of the batch: names and values are slices of the body until they
//! are a label set. Of a series that came before, and has a number, not even the labels are walked (`sequence.rs`):
//! its rows carry its [`RepeatId`] and no labels.
//!
//! What is taken: whatever Prometheus takes that fits `model`'s rules. Labels may stand in any order (the protocol
//! wants them sorted), twice the same name is refused. Values may be any double, NaN payloads included; the one that
//! marks a series stale is a value like the others here.
//! A series or a sample that cannot be taken is left out and the others are not ([`LeftOut`]), as Prometheus' own
//! receiver does it: a sender drops a request that was answered 400, and one bad clock among many targets would
//! take the others' samples with it. Bytes that are no such message leave the batch empty.
//!
//! Not here: snappy (`http`), the request's headers (the server).
//! Read next: `remote_write/wire.rs` for the bytes, `remote_write/error.rs` for what is told, `sequence.rs`.

mod wire;

mod error;
pub use error::{LeftOut, RemoteWriteError, SeriesError};

use crate::sequence::Sequence;
use crate::{Repeat, TimeBounds, TimeRefusal};
use model::{Batch, LABELS_MAX, LabelError, LabelSetBuilder, MetricKind, RepeatId, TextHash, Timestamp};
use std::ops::Range;
use wire::{Kind, Malformed, Wire};

/// The tags of what most bytes are: field 1 or 2, of bytes.
const FIRST_OF_BYTES: u8 = 0x0a;
const SECOND_OF_BYTES: u8 = 0x12;
/// Bytes that one step passes at most, but for one field that is longer.
const BYTES_PER_STEP: usize = 128 * 1024;

/// Decodes remote write. Kept by a loop and reused: it holds memory for work, and what senders repeat.
#[derive(Debug)]
pub struct RemoteWriteDecoder {
    /// Names and values of the series at hand, as places in the body.
    labels: Vec<(Range<usize>, Range<usize>)>,
    builder: LabelSetBuilder,
    sequence: Option<Sequence>,
}

/// What a request held besides the samples that are in the batch now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteWritten {
    /// Samples that could not be taken.
    pub left_out: Option<LeftOut>,
    /// Native histograms, which are not kept.
    pub histograms: u64,
    /// Exemplars, which are not kept.
    pub exemplars: u64,
    /// Help texts, units and types, which are not kept.
    pub metadata: u64,
}

impl RemoteWriteDecoder {
    /// A decoder that remembers nothing.
    pub fn new() -> RemoteWriteDecoder {
        RemoteWriteDecoder { labels: Vec::new(), builder: LabelSetBuilder::default(), sequence: None }
    }

    /// One that remembers so many series, for who reads the batches of this decoder and no other: they say by which
    /// [`RepeatId`] it does. The seed keeps a client from choosing labels that collide.
    pub fn naming_repeats(seed: u64, series_max: usize) -> RemoteWriteDecoder {
        RemoteWriteDecoder { sequence: Some(Sequence::new(seed, series_max)), ..RemoteWriteDecoder::new() }
    }

    /// Decodes a whole body into `batch`, which it empties first and leaves empty on any refusal.
    ///
    /// `is_numbered` says of which series the caller needs no labels. `repeat` is kept per sender: what its last body
    /// ended with goes in, what this one ends with comes out.
    pub fn decode(
        &mut self,
        body: &[u8],
        bounds: &TimeBounds,
        batch: &mut Batch,
        repeat: &mut Repeat,
        is_numbered: impl Fn(RepeatId) -> bool,
    ) -> Result<RemoteWritten, RemoteWriteError> {
        if let Some(sequence) = &mut self.sequence {
            sequence.begin(*repeat);
        }
        let mut walk = Walk::begin(self, body, bounds, batch, is_numbered);
        while walk.step(usize::MAX, usize::MAX) {}
        let written = walk.finish();
        if let Some(sequence) = &self.sequence {
            *repeat = sequence.last();
        }
        written
    }

    /// Begins to decode a body in steps; every row has its labels.
    pub fn begin<'a>(
        &'a mut self,
        body: &'a [u8],
        bounds: &TimeBounds,
        batch: &'a mut Batch,
    ) -> RemoteWriting<'a> {
        RemoteWriting(Walk::begin(self, body, bounds, batch, |_| false))
    }
}

impl Default for RemoteWriteDecoder {
    fn default() -> RemoteWriteDecoder {
        RemoteWriteDecoder::new()
    }
}

/// A body that is decoded in steps. Dropped early it leaves any part of the body in the batch.
pub struct RemoteWriting<'a>(Walk<'a, 'a, fn(RepeatId) -> bool>);

impl RemoteWriting<'_> {
    /// Decodes so many series and samples at most, and ends behind the first that passes 128 KiB; `false` when all is
    /// decoded.
    pub fn step(&mut self, fields_max: usize) -> bool {
        self.0.step(fields_max, BYTES_PER_STEP)
    }

    /// What the body was; whatever of it is left is decoded at once.
    pub fn finish(mut self) -> Result<RemoteWritten, RemoteWriteError> {
        while self.0.step(usize::MAX, usize::MAX) {}
        self.0.finish()
    }
}

/// One body on its way into a batch.
struct Walk<'d, 'b, K> {
    decoder: &'d mut RemoteWriteDecoder,
    batch: &'d mut Batch,
    body: &'b [u8],
    bounds: TimeBounds,
    is_numbered: K,
    rest: Wire<'b>,
    /// The series at hand, from 0 on, and what is left of it.
    index: usize,
    series: Option<Series<'b>>,
    written: RemoteWritten,
    outcome: Option<Result<(), RemoteWriteError>>,
}

#[derive(Debug)]
struct Series<'b> {
    begin: usize,
    rest: Wire<'b>,
    /// Rows in the batch before its own.
    rows_before: usize,
    /// The row that says its labels, and after how many others they are said again.
    said_at: usize,
    say_again_after: usize,
    left_out_before: usize,
    labels: Labels,
}

/// What is known of the labels of the series at hand.
#[derive(Debug)]
enum Labels {
    /// It has a number, and needs none.
    Numbered(RepeatId),
    /// Their places are noted; as what they were met before, or what is to be remembered of them.
    Noted(Option<RepeatId>, Option<(TextHash, usize)>),
    /// They stand in the batch.
    InBatch,
    /// No sample of it can be taken.
    Wrong(SeriesError),
}

impl<'d, 'b, K: Fn(RepeatId) -> bool> Walk<'d, 'b, K> {
    fn begin(
        decoder: &'d mut RemoteWriteDecoder,
        body: &'b [u8],
        bounds: &TimeBounds,
        batch: &'d mut Batch,
        is_numbered: K,
    ) -> Walk<'d, 'b, K> {
        batch.clear();
        Walk {
            decoder,
            batch,
            body,
            bounds: *bounds,
            is_numbered,
            rest: Wire::new(body),
            index: 0,
            series: None,
            written: RemoteWritten::default(),
            outcome: None,
        }
    }

    fn step(&mut self, fields_max: usize, bytes_max: usize) -> bool {
        if self.outcome.is_none() {
            self.outcome = self.fields(fields_max, bytes_max).transpose();
        }
        self.outcome.is_none()
    }

    fn finish(self) -> Result<RemoteWritten, RemoteWriteError> {
        match self.outcome {
            None | Some(Ok(())) => Ok(self.written),
            Some(Err(error)) => {
                self.batch.clear();
                Err(error)
            }
        }
    }

    /// The next fields; something when there are no more.
    fn fields(&mut self, fields_max: usize, bytes_max: usize) -> Result<Option<()>, RemoteWriteError> {
        let stop_at = self.at().saturating_add(bytes_max);
        let mut left = fields_max;
        while left > 0 && self.at() < stop_at {
            let mut series = if let Some(series) = self.series.take() {
                series
            } else if self.rest.rest().first() == Some(&FIRST_OF_BYTES) {
                left -= 1;
                self.rest.pass(1);
                let series = self.rest.take()?;
                self.begin_series(series)?
            } else if self.rest.is_empty() {
                return Ok(Some(()));
            } else {
                left -= 1;
                self.other()?;
                continue;
            };
            left -= self.samples(&mut series, left, stop_at)?;
            if series.rest.is_empty() {
                self.index += 1;
            } else {
                self.series = Some(series);
            }
        }
        Ok(None)
    }

    fn at(&self) -> usize {
        self.series.as_ref().map_or(self.rest.at(), |series| series.rest.at())
    }

    /// A field of the request that is no series, or one whose tag is written at length.
    fn other(&mut self) -> Result<(), RemoteWriteError> {
        let (number, kind) = self.rest.tag()?;
        match (number, kind) {
            (1, Kind::Bytes) => {
                let series = self.rest.take()?;
                self.series = Some(self.begin_series(series)?);
                return Ok(());
            }
            (1, _) => return Err(self.rest.wrong_kind("a series").into()),
            (3, Kind::Bytes) => self.written.metadata += 1,
            (3, _) => return Err(self.rest.wrong_kind("metadata").into()),
            // Symbols, and series that name them: 2.0 keeps clear of the numbers of 1.0, so that it would be empty.
            (4 | 5, Kind::Bytes) => return Err(RemoteWriteError::Version2),
            _ => {}
        }
        Ok(self.rest.skip(kind)?)
    }

    /// Finds out which series it is; stands behind the labels then.
    #[inline]
    fn begin_series(&mut self, mut rest: Wire<'b>) -> Result<Series<'b>, Malformed> {
        let begin = rest.at();
        let rows_before = self.batch.len();
        let left_out_before = self.written.left_out.as_ref().map_or(0, |left_out| left_out.samples);
        let labels = self.begin_labels(&mut rest)?;
        let (said_at, say_again_after) = (rows_before, say_again_after(0));
        Ok(Series { begin, rest, rows_before, said_at, say_again_after, left_out_before, labels })
    }

    #[inline]
    fn begin_labels(&mut self, rest: &mut Wire<'b>) -> Result<Labels, Malformed> {
        let Some(sequence) = &mut self.decoder.sequence else {
            self.decoder.note_labels(rest)?;
            return Ok(Labels::Noted(None, None));
        };
        let bytes = rest.rest();
        let mut repeat = None;
        if let Some(len) = sequence.expected_len()
            && bytes.get(len) == Some(&SECOND_OF_BYTES)
        {
            repeat = sequence.follows(sequence.hash(&bytes[..len]), len);
            if let Some(id) = repeat
                && (self.is_numbered)(id)
            {
                rest.pass(len);
                return Ok(Labels::Numbered(id));
            }
        }
        self.decoder.note_labels(rest)?;
        let text = &bytes[..bytes.len() - rest.rest().len()];
        let mut fresh = None;
        if repeat.is_none()
            && let Some(sequence) = &mut self.decoder.sequence
        {
            let hash = sequence.hash(text);
            repeat = sequence.find(hash);
            fresh = repeat.is_none().then_some((hash, text.len()));
        }
        Ok(match repeat {
            Some(id) if (self.is_numbered)(id) => Labels::Numbered(id),
            repeat => Labels::Noted(repeat, fresh),
        })
    }

    /// Samples of a series, and whatever else stands there; how many fields that were.
    fn samples(
        &mut self,
        series: &mut Series<'b>,
        fields_max: usize,
        stop_at: usize,
    ) -> Result<usize, RemoteWriteError> {
        let mut fields = 0;
        while !series.rest.is_empty() && fields < fields_max && series.rest.at() < stop_at {
            if let Labels::InBatch = series.labels {
                let passed = self.usual_samples(series, fields_max - fields, stop_at);
                if passed > 0 {
                    fields += passed;
                    continue;
                }
            }
            fields += 1;
            if series.rest.rest().first() == Some(&SECOND_OF_BYTES) {
                series.rest.pass(1);
                let (value, millis) = sample(series.rest.take()?)?;
                self.push(series, value, millis);
                continue;
            }
            let (number, kind) = series.rest.tag()?;
            match (number, kind) {
                (1, Kind::Bytes) => self.gather_labels(series)?,
                (1, _) => return Err(series.rest.wrong_kind("a label").into()),
                (2, Kind::Bytes) => {
                    let (value, millis) = sample(series.rest.take()?)?;
                    self.push(series, value, millis);
                }
                (2, _) => return Err(series.rest.wrong_kind("a sample").into()),
                (3, Kind::Bytes) => {
                    series.rest.take()?;
                    self.written.exemplars += 1;
                }
                (4, Kind::Bytes) => {
                    series.rest.take()?;
                    self.written.histograms += 1;
                }
                (3 | 4, _) => return Err(series.rest.wrong_kind("an exemplar or a histogram").into()),
                _ => series.rest.skip(kind)?,
            }
        }
        Ok(fields)
    }

    /// Further samples of a series whose labels stand in the batch, as long as they are as usual; how many.
    #[inline]
    fn usual_samples(&mut self, series: &mut Series<'b>, samples_max: usize, stop_at: usize) -> usize {
        let rows_before = self.batch.len();
        let before_said_again = series.say_again_after.saturating_sub(rows_before - series.said_at);
        let rest = &mut series.rest;
        let oldest = self.bounds.oldest.unwrap_or_default().max(0);
        let times = oldest..=self.bounds.newest;
        let usual = std::iter::from_fn(|| {
            let (millis, value) =
                if rest.at() < stop_at { rest.usual_sample(|at| times.contains(&at)) } else { None }?;
            Some((Timestamp::first_of_milli(millis), value))
        });
        self.batch.push_all_again(usual.take(samples_max.min(before_said_again)));
        self.batch.len() - rows_before
    }

    /// A label stands behind what is no label, which no known sender does and the format allows: the series is begun
    /// anew, with the labels from wherever they stand in it.
    #[cold]
    fn gather_labels(&mut self, series: &mut Series<'b>) -> Result<(), Malformed> {
        self.batch.truncate(series.rows_before);
        if let Some(left_out) = &mut self.written.left_out {
            left_out.samples = series.left_out_before;
        }
        self.written.left_out.take_if(|left_out| left_out.samples == 0);
        let mut whole = Wire::again(self.body, series.begin, series.rest.end());
        self.decoder.labels.clear();
        let mut samples = Vec::new();
        let (mut exemplars, mut histograms) = (0, 0);
        while !whole.is_empty() {
            let at = whole.at();
            let (number, kind) = whole.tag()?;
            match (number, kind) {
                (1, Kind::Bytes) => {
                    let label = whole.take()?;
                    self.decoder.note_label(label)?;
                }
                (1, _) => return Err(whole.wrong_kind("a label")),
                (2, Kind::Bytes) => samples.push(sample(whole.take()?)?),
                (2, _) => return Err(whole.wrong_kind("a sample")),
                (3, Kind::Bytes) => {
                    whole.take()?;
                    exemplars += u64::from(at > series.rest.at());
                }
                (4, Kind::Bytes) => {
                    whole.take()?;
                    histograms += u64::from(at > series.rest.at());
                }
                (3 | 4, _) => return Err(whole.wrong_kind("an exemplar or a histogram")),
                _ => whole.skip(kind)?,
            }
        }
        self.written.exemplars += exemplars;
        self.written.histograms += histograms;
        series.labels = Labels::Noted(None, None);
        series.said_at = series.rows_before;
        series.rest = whole;
        for (value, millis) in samples {
            self.push(series, value, millis);
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, series: &mut Series<'b>, value: f64, millis: i64) {
        if let Err(refusal) = self.bounds.check(millis).and_then(|()| after_1970(millis)) {
            return self.leave_out(SeriesError::Time(refusal));
        }
        // Within the bounds, which lie far within what a timestamp holds.
        let timestamp = Timestamp::first_of_milli(millis);
        match &series.labels {
            Labels::InBatch if self.batch.len() - series.said_at < series.say_again_after => {
                self.batch.push_again(timestamp, value);
            }
            Labels::InBatch => {
                series.say_again_after = say_again_after(self.batch.last_labels().len());
                series.said_at = self.batch.len();
                self.batch.push_anew(timestamp, value);
            }
            Labels::Numbered(id) => {
                self.batch.push_named(*id, MetricKind::Gauge, Some(timestamp), value);
                series.labels = Labels::InBatch;
            }
            Labels::Noted(repeat, fresh) => {
                series.labels = match self.push_first(*repeat, *fresh, timestamp, value) {
                    Ok(()) => Labels::InBatch,
                    Err(error) => {
                        self.leave_out(error.clone());
                        Labels::Wrong(error)
                    }
                };
            }
            Labels::Wrong(error) => {
                let error = error.clone();
                self.leave_out(error);
            }
        }
    }

    /// The first sample of a series whose labels are only noted.
    fn push_first(
        &mut self,
        repeat: Option<RepeatId>,
        fresh: Option<(TextHash, usize)>,
        timestamp: Timestamp,
        value: f64,
    ) -> Result<(), SeriesError> {
        let RemoteWriteDecoder { labels, builder, sequence } = &mut *self.decoder;
        let text = |place: &Range<usize>| {
            std::str::from_utf8(&self.body[place.clone()]).map_err(|_| SeriesError::NotUtf8)
        };
        if labels.len() > LABELS_MAX + 1 {
            return Err(SeriesError::Label(LabelError::TooManyLabels));
        }
        let mut name = None;
        for (label, value) in labels.iter() {
            if &self.body[label.clone()] == b"__name__" && name.replace(text(value)?).is_some() {
                return Err(SeriesError::Label(LabelError::LabelTwice("__name__".to_owned())));
            }
        }
        builder.begin(name.ok_or(SeriesError::NameMissing)?).map_err(SeriesError::Label)?;
        for (label, value) in labels.iter() {
            let label = text(label)?;
            if label != "__name__" {
                builder.push(label, text(value)?).map_err(SeriesError::Label)?;
            }
        }
        let kind = MetricKind::Gauge;
        self.batch
            .push(|out| builder.finish_into(out), kind, Some(timestamp), value)
            .map_err(SeriesError::Label)?;
        let remembered = sequence.as_mut().zip(fresh);
        let repeat = repeat.or_else(|| remembered.and_then(|(of, (hash, len))| of.remember(hash, len)));
        self.batch.name_last(repeat);
        Ok(())
    }

    #[cold]
    fn leave_out(&mut self, error: SeriesError) {
        let index = self.index;
        self.written.left_out.get_or_insert(LeftOut { samples: 0, index, error }).samples += 1;
    }
}

impl RemoteWriteDecoder {
    /// Notes the labels that stand here, and passes them.
    #[inline]
    fn note_labels(&mut self, rest: &mut Wire<'_>) -> Result<(), Malformed> {
        self.labels.clear();
        while rest.rest().first() == Some(&FIRST_OF_BYTES) {
            rest.pass(1);
            let label = rest.take()?;
            self.note_label(label)?;
        }
        Ok(())
    }

    #[inline]
    fn note_label(&mut self, mut label: Wire<'_>) -> Result<(), Malformed> {
        let nothing = label.end()..label.end();
        let (mut name, mut value) = (nothing.clone(), nothing);
        while !label.is_empty() {
            match label.tag()? {
                (1, Kind::Bytes) => name = label.take().map(|part| part.at()..part.end())?,
                (2, Kind::Bytes) => value = label.take().map(|part| part.at()..part.end())?,
                (1 | 2, _) => return Err(label.wrong_kind("text")),
                (_, kind) => label.skip(kind)?,
            }
        }
        // One more than a set may have besides the name: that is refused, and what is beyond need not be noted.
        if self.labels.len() < LABELS_MAX + 2 {
            self.labels.push((name, value));
        }
        Ok(())
    }
}

/// Rows of a series after which its labels are said again, so that a reader of any piece finds them near; long ones not
/// so often that they would take more than the samples' own bytes.
fn say_again_after(label_bytes: usize) -> usize {
    const ROWS: usize = 4_096;
    ROWS.max(label_bytes / 2)
}

/// Value and milliseconds.
#[inline]
fn sample(mut rest: Wire<'_>) -> Result<(f64, i64), Malformed> {
    const VALUE: u8 = 0x09;
    const TIMESTAMP: u8 = 0x10;
    let (mut value, mut millis) = (0.0, 0);
    // As every sender writes it; what is 0 may be left out.
    if let [VALUE, bits @ ..] = rest.rest()
        && let Some(bits) = bits.first_chunk()
    {
        value = f64::from_bits(u64::from_le_bytes(*bits));
        rest.pass(9);
    }
    if let [TIMESTAMP, ..] = rest.rest() {
        rest.pass(1);
        millis = rest.varint()? as i64;
    }
    while !rest.is_empty() {
        match rest.tag()? {
            (1, Kind::Fixed64) => value = f64::from_bits(rest.fixed64()?),
            (2, Kind::Varint) => millis = rest.varint()? as i64,
            (1 | 2, _) => return Err(rest.wrong_kind("a double, or milliseconds")),
            (_, kind) => rest.skip(kind)?,
        }
    }
    Ok((value, millis))
}

/// Where everything is kept, a number below 0 is a time all the same that nobody means.
#[inline]
fn after_1970(millis: i64) -> Result<(), TimeRefusal> {
    if millis >= 0 {
        return Ok(());
    }
    Err(TimeRefusal::TooOld { timestamp: millis, oldest: 0, looks_like: None })
}

impl From<Malformed> for RemoteWriteError {
    fn from(Malformed { offset, expected }: Malformed) -> RemoteWriteError {
        RemoteWriteError::Malformed { offset, expected }
    }
}

#[cfg(test)]
mod tests;
