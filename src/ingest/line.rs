//! Bodies of `POST /write` and `POST /api/v2/write` (SPEC §2.4): InfluxDB line protocol.
//!
//! ```text
//!   cpu,host=a,zone=b usage_idle=98.2,cores=8i,name="x" 1696789234567000000
//!   │   └ tags: labels  └ fields: a sample each           └ time, in the unit that the request names (nanoseconds)
//!   └ measurement: the name of the field `value`; of another field it is measurement_field
//! ```
//!
//! What is taken: numbers, whole ones with `i` or `u` (as the nearest double), `t`, `true`, `F` and so on as 1 and 0.
//! Text is passed and counted: it is no sample, and agents send it beside what is one. NaN and infinities do not exist
//! in the format. Times are kept to the millisecond; a line without one gets the server's clock. A tag without a value
//! is the same as none. Lines may end in CRLF; empty ones and those that begin with `#` are passed.
//! `\,` `\=` `\ ` stand for themselves in names and tags (in a measurement `\=` is two characters), any other `\` is one.
//! A line that cannot be taken refuses the body, and is told by its number: like a batch of JSON it is kept whole or
//! not at all.
//!
//! Of a field that came before, and has a number, neither tags nor names are read (`sequence.rs`).
//! Not here: the request's parameters and headers (the server), a JSON body on the same path (`metrics/measurement.rs`).

use crate::bounds::label_bytes_max;
use crate::sequence::Sequence;
use crate::{Repeat, TimeBounds, TimeRefusal};
use model::{Batch, LabelError, LabelSetBuilder, MetricKind, RepeatId, Timestamp};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Bytes that one step passes at most, but for one line that is longer.
const BYTES_PER_STEP: usize = 64 * 1024;

/// In which unit a request counts its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineUnit {
    /// `n`, `ns`: where nothing is said.
    #[default]
    Nanoseconds,
    /// `u`, `us`, `µ`, `µs`.
    Microseconds,
    /// `ms`.
    Milliseconds,
    /// `s`.
    Seconds,
    /// `m`.
    Minutes,
    /// `h`.
    Hours,
}

/// What a body held besides the samples that are in the batch now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinesWritten {
    /// Fields of text, which are not kept.
    pub texts: u64,
}

/// A body of which nothing is taken; the client's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub cause: LineCause,
}

/// Of a line, its time included: what is longer is refused, for a line is taken in one step.
const LINE_BYTES_MAX: usize = 64 * 1024;
const SHORTER_LINE: &str = "a line of at most 64 KiB";
const FEWER_LABELS: &str = "shorter tags or fewer fields: each field repeats the tags of its line, and all together may take 16 times \
                            the bytes of the body";

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineCause {
    /// It is not written as the format wants it; what would have been right.
    Expected(&'static str),
    /// Measurement, field and tags make no label set.
    Label(LabelError),
    /// Its time is not taken.
    Time(TimeRefusal),
}

/// Decodes line protocol. Kept by a loop and reused: it holds memory for work, and what senders repeat.
#[derive(Debug)]
pub struct LineDecoder {
    /// Names of the fields of the line at hand, as places in the body, and their values.
    fields: Vec<(Range<usize>, f64)>,
    /// Its tags, the same.
    tags: Vec<(Range<usize>, Range<usize>)>,
    name: String,
    builder: LabelSetBuilder,
    sequence: Option<Sequence>,
}

impl LineUnit {
    /// The unit of that name, as the parameter `precision` gives it.
    pub fn from_name(name: &str) -> Option<LineUnit> {
        Some(match name {
            "n" | "ns" => LineUnit::Nanoseconds,
            "u" | "us" | "µ" | "µs" => LineUnit::Microseconds,
            "ms" => LineUnit::Milliseconds,
            "s" => LineUnit::Seconds,
            "m" => LineUnit::Minutes,
            "h" => LineUnit::Hours,
            _ => return None,
        })
    }

    /// Whole milliseconds, rounded towards the past; what is beyond their range stays at its end.
    fn millis(self, time: i64) -> i64 {
        match self {
            LineUnit::Nanoseconds => time.div_euclid(1_000_000),
            LineUnit::Microseconds => time.div_euclid(1_000),
            LineUnit::Milliseconds => time,
            LineUnit::Seconds => time.saturating_mul(1_000),
            LineUnit::Minutes => time.saturating_mul(60_000),
            LineUnit::Hours => time.saturating_mul(3_600_000),
        }
    }
}

impl LineDecoder {
    /// A decoder that remembers nothing.
    pub fn new() -> LineDecoder {
        LineDecoder {
            fields: Vec::new(),
            tags: Vec::new(),
            name: String::new(),
            builder: LabelSetBuilder::default(),
            sequence: None,
        }
    }

    /// One that remembers so many series, for who reads the batches of this decoder and no other: they say by which
    /// [`RepeatId`] it does. The seed keeps a client from choosing labels that collide.
    pub fn naming_repeats(seed: u64, series_max: usize) -> LineDecoder {
        LineDecoder { sequence: Some(Sequence::new(seed, series_max)), ..LineDecoder::new() }
    }

    /// Decodes a whole body into `batch`, which it empties first and leaves empty on any refusal.
    ///
    /// `is_numbered` says of which series the caller needs no labels. `repeat` is kept per sender: what its last body
    /// ended with goes in, what this one ends with comes out.
    pub fn decode(
        &mut self,
        body: &[u8],
        (unit, bounds): (LineUnit, &TimeBounds),
        batch: &mut Batch,
        repeat: &mut Repeat,
        is_numbered: impl Fn(RepeatId) -> bool,
    ) -> Result<LinesWritten, LineError> {
        batch.clear();
        let text =
            std::str::from_utf8(body).map_err(|error| LineError::not_utf8(body, error.valid_up_to()))?;
        if let Some(sequence) = &mut self.sequence {
            sequence.begin(*repeat);
        }
        let mut walk = Walk::begin(self, text, (unit, bounds), batch, is_numbered);
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
        body: &'a str,
        (unit, bounds): (LineUnit, &TimeBounds),
        batch: &'a mut Batch,
    ) -> LineDecoding<'a> {
        batch.clear();
        LineDecoding(Walk::begin(self, body, (unit, bounds), batch, |_| false))
    }
}

impl Default for LineDecoder {
    fn default() -> LineDecoder {
        LineDecoder::new()
    }
}

/// A body that is decoded in steps. Dropped early it leaves any part of the body in the batch.
pub struct LineDecoding<'a>(Walk<'a, 'a, fn(RepeatId) -> bool>);

impl LineDecoding<'_> {
    /// Decodes so many lines at most, and ends behind the first that passes 64 KiB; `false` when all is decoded.
    pub fn step(&mut self, lines_max: usize) -> bool {
        self.0.step(lines_max, BYTES_PER_STEP)
    }

    /// What the body was; whatever of it is left is decoded at once.
    pub fn finish(mut self) -> Result<LinesWritten, LineError> {
        while self.0.step(usize::MAX, usize::MAX) {}
        self.0.finish()
    }
}

/// One body on its way into a batch.
struct Walk<'d, 'b, K> {
    decoder: &'d mut LineDecoder,
    batch: &'d mut Batch,
    text: &'b str,
    at: usize,
    /// The line that begins there, from 1.
    line: usize,
    unit: LineUnit,
    bounds: TimeBounds,
    is_numbered: K,
    written: LinesWritten,
    outcome: Option<Result<(), LineError>>,
}

impl<'d, 'b, K: Fn(RepeatId) -> bool> Walk<'d, 'b, K> {
    fn begin(
        decoder: &'d mut LineDecoder,
        text: &'b str,
        (unit, bounds): (LineUnit, &TimeBounds),
        batch: &'d mut Batch,
        is_numbered: K,
    ) -> Walk<'d, 'b, K> {
        let (bounds, written) = (*bounds, LinesWritten::default());
        Walk { decoder, batch, text, at: 0, line: 1, unit, bounds, is_numbered, written, outcome: None }
    }

    fn step(&mut self, lines_max: usize, bytes_max: usize) -> bool {
        let stop_at = self.at.saturating_add(bytes_max);
        for _ in 0..lines_max {
            if self.outcome.is_some() || self.at >= stop_at {
                break;
            }
            let line = self.line;
            self.outcome = match self.line() {
                Ok(true) => None,
                Ok(false) => Some(Ok(())),
                Err(cause) => Some(Err(LineError { line, cause })),
            };
        }
        self.outcome.is_none()
    }

    fn finish(self) -> Result<LinesWritten, LineError> {
        match self.outcome {
            None | Some(Ok(())) => Ok(self.written),
            Some(Err(error)) => {
                self.batch.clear();
                Err(error)
            }
        }
    }

    fn rest(&self) -> &'b [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn skip_space(&mut self) {
        self.at += self.rest().iter().take_while(|byte| **byte == b' ' || **byte == b'\t').count();
    }

    /// Passes what ends a line; false where it does not end here.
    fn end_line(&mut self) -> bool {
        match self.rest() {
            [] => {}
            [b'\n', ..] => self.at += 1,
            [b'\r', b'\n', ..] => self.at += 2,
            _ => return false,
        }
        self.line += 1;
        true
    }

    /// The next line; `false` when there is none.
    fn line(&mut self) -> Result<bool, LineCause> {
        self.skip_space();
        match self.peek() {
            None => return Ok(false),
            Some(b'#') => {
                self.at += self.rest().iter().take_while(|byte| **byte != b'\n').count();
                self.end_line();
                return Ok(true);
            }
            Some(_) if self.end_line() => return Ok(true),
            Some(b',') => return Err(LineCause::Expected("a measurement")),
            Some(_) => {}
        }
        let begin = self.at;
        // Mostly there is nothing to unescape.
        let rest = self.rest();
        self.at += match memchr::memchr3(b' ', b'\n', b'\\', rest) {
            Some(at) if rest[at] != b'\\' => at,
            Some(at) => at + find(&rest[at..], |byte| b" \n".contains(&byte)),
            None => rest.len(),
        };
        let key = begin..self.at;
        if key.len() > LINE_BYTES_MAX {
            return Err(LineCause::Expected(SHORTER_LINE));
        }
        if self.peek() != Some(b' ') {
            return Err(LineCause::Expected("fields behind measurement and tags"));
        }
        self.skip_space();
        self.fields()?;
        self.skip_space();
        let millis = self.time()?;
        self.skip_space();
        let line_bytes = self.at - begin;
        if !self.end_line() {
            return Err(LineCause::Expected("the end of the line behind the time"));
        }
        if line_bytes > LINE_BYTES_MAX {
            return Err(LineCause::Expected(SHORTER_LINE));
        }
        let timestamp = match millis {
            None => None,
            Some(millis) => {
                self.check(millis).map_err(LineCause::Time)?;
                Some(Timestamp::first_of_milli(millis))
            }
        };
        self.push(key, timestamp)?;
        Ok(true)
    }

    fn check(&self, millis: i64) -> Result<(), TimeRefusal> {
        // Which unit a number looks like is beside the point where the request names one.
        self.bounds.check(millis).map_err(|refusal| match refusal {
            TimeRefusal::TooOld { timestamp, oldest, .. } => {
                TimeRefusal::TooOld { timestamp, oldest, looks_like: None }
            }
            TimeRefusal::TooNew { timestamp, newest, .. } => {
                TimeRefusal::TooNew { timestamp, newest, looks_like: None }
            }
        })?;
        if millis >= 0 {
            return Ok(());
        }
        Err(TimeRefusal::TooOld { timestamp: millis, oldest: 0, looks_like: None })
    }

    /// Names and values of the fields that stand here.
    fn fields(&mut self) -> Result<(), LineCause> {
        self.decoder.fields.clear();
        loop {
            let begin = self.at;
            self.at += find(self.rest(), |byte| b"=, \n".contains(&byte));
            let name = begin..self.at;
            if name.is_empty() || self.peek() != Some(b'=') {
                return Err(LineCause::Expected("a field and = before its value"));
            }
            self.at += 1;
            match self.value()? {
                Some(value) => self.decoder.fields.push((name, value)),
                None => self.written.texts += 1,
            }
            if self.peek() != Some(b',') {
                return Ok(());
            }
            self.at += 1;
        }
    }

    /// The value that stands here; nothing where it is text.
    fn value(&mut self) -> Result<Option<f64>, LineCause> {
        if self.peek() == Some(b'"') {
            self.at += 1;
            loop {
                self.at += self.rest().iter().take_while(|byte| !b"\"\\\n".contains(byte)).count();
                match self.peek() {
                    None => return Err(LineCause::Expected("the quote that ends a text")),
                    Some(b'"') => {
                        self.at += 1;
                        return Ok(None);
                    }
                    // A line may end within a text.
                    Some(b'\n') => self.line += 1,
                    // Whatever is escaped, a quote above all.
                    Some(_) => self.at += usize::from(matches!(self.rest(), [_, b'"' | b'\\', ..])),
                }
                self.at += 1;
            }
        }
        let begin = self.at;
        self.at += self.rest().iter().take_while(|byte| !b", \t\r\n".contains(byte)).count();
        let token = &self.text[begin..self.at];
        let value = match token.as_bytes() {
            [.., b'i'] => token[..token.len() - 1].parse::<i64>().ok().map(|whole| whole as f64),
            [.., b'u'] => token[..token.len() - 1].parse::<u64>().ok().map(|whole| whole as f64),
            b"t" | b"T" | b"true" | b"True" | b"TRUE" => Some(1.0),
            b"f" | b"F" | b"false" | b"False" | b"FALSE" => Some(0.0),
            // The words for what is no finite number are made of other letters.
            bytes if bytes.iter().all(|byte| b"0123456789+-.eE".contains(byte)) => {
                token.parse::<f64>().ok().filter(|value| value.is_finite())
            }
            _ => None,
        };
        let expected = "a finite number, a whole one with i or u, true, false or a text in quotes";
        value.map(Some).ok_or(LineCause::Expected(expected))
    }

    /// The time that stands here, in milliseconds, if one does.
    fn time(&mut self) -> Result<Option<i64>, LineCause> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
        if digits == 0 {
            return Ok(None);
        }
        let token = &self.text[self.at..self.at + digits];
        self.at += digits;
        let time = token.parse().map_err(|_| LineCause::Expected("a time of 64 bits"))?;
        Ok(Some(self.unit.millis(time)))
    }

    /// Adds the samples of a line, whose measurement and tags stand there.
    fn push(&mut self, key: Range<usize>, timestamp: Option<Timestamp>) -> Result<(), LineCause> {
        let LineDecoder { fields, tags, name, builder, sequence } = &mut *self.decoder;
        let text = self.text;
        if timestamp.is_none() {
            // With a time the last one replaces the others; without one each would be a sample more.
            keep_last(fields, text);
        }
        let of_key = sequence.as_ref().map(|sequence| sequence.hash(text[key.clone()].as_bytes()));
        let mut measurement = None;
        for (field, value) in &*fields {
            let field = &text[field.clone()];
            let hash = sequence.as_ref().zip(of_key).map(|(of, key)| of.hash_behind(key, field.as_bytes()));
            let len = key.len() + field.len();
            let mut repeat = None;
            if let Some((sequence, hash)) = sequence.as_mut().zip(hash) {
                repeat = sequence.follows(hash, len).or_else(|| sequence.find(hash));
                if let Some(id) = repeat
                    && (self.is_numbered)(id)
                {
                    self.batch.push_named(id, MetricKind::Gauge, timestamp, *value);
                    continue;
                }
            }
            let measurement = match &measurement {
                Some(measurement) => measurement,
                None => measurement.insert(read_key(text, key.clone(), tags)?),
            };
            name.clear();
            name.push_str(measurement);
            let field = unescaped(field, b",= ");
            if field != "value" {
                name.push('_');
                name.push_str(&field);
            }
            builder.begin(name).map_err(LineCause::Label)?;
            for (tag, of) in &*tags {
                let (tag, of) = (unescaped(&text[tag.clone()], b",= "), unescaped(&text[of.clone()], b",= "));
                builder.push(&tag, &of).map_err(LineCause::Label)?;
            }
            let kind = MetricKind::Gauge;
            self.batch
                .push(|out| builder.finish_into(out), kind, timestamp, *value)
                .map_err(LineCause::Label)?;
            if let (None, Some((sequence, hash))) = (repeat, sequence.as_mut().zip(hash)) {
                repeat = sequence.remember(hash, len);
            }
            self.batch.name_last(repeat);
            if self.batch.label_bytes(0..self.batch.len()) > label_bytes_max(text.len()) {
                return Err(LineCause::Expected(FEWER_LABELS));
            }
        }
        Ok(())
    }
}

/// Of fields of one name the last: a point has each once.
fn keep_last(fields: &mut Vec<(Range<usize>, f64)>, text: &str) {
    /// With so few, each is compared with each, and mostly that is all.
    const FEW: usize = 16;
    let name = |field: &(Range<usize>, f64)| &text[field.0.clone()];
    let is_twice = |at: usize| fields[..at].iter().any(|before| name(before) == name(&fields[at]));
    if fields.len() <= FEW && !(1..fields.len()).any(is_twice) {
        return;
    }
    let last: BTreeMap<&str, usize> =
        fields.iter().enumerate().map(|(at, field)| (name(field), at)).collect();
    let mut at = 0;
    fields.retain(|field| {
        at += 1;
        last[name(field)] == at - 1
    });
}

/// The measurement that stands there, and where its tags do.
fn read_key<'t>(
    text: &'t str,
    key: Range<usize>,
    tags: &mut Vec<(Range<usize>, Range<usize>)>,
) -> Result<Cow<'t, str>, LineCause> {
    tags.clear();
    let bytes = &text.as_bytes()[..key.end];
    let mut at = key.start + find(&bytes[key.start..], |byte| byte == b',');
    let measurement = unescaped(&text[key.start..at], b", ");
    while at < key.end {
        let begin = at + 1;
        let name = begin..begin + find(&bytes[begin..], |byte| b"=,".contains(&byte));
        if name.is_empty() || bytes.get(name.end) != Some(&b'=') {
            return Err(LineCause::Expected("a tag and = before its value"));
        }
        let begin = name.end + 1;
        at = begin + find(&bytes[begin..], |byte| byte == b',');
        tags.push((name, begin..at));
    }
    Ok(measurement)
}

/// Where the first such byte stands that is not escaped; the end where there is none. As InfluxDB has it, a byte is
/// escaped by the backslash before it, and a backslash by nothing: `a\\,b` is one text, `a\,b`.
fn find(bytes: &[u8], is_it: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if is_it(byte) {
            return at;
        }
        // An escaped line's end is one all the same.
        let escapes = byte == b'\\' && bytes.get(at + 1).is_some_and(|next| !b"\n\\".contains(next));
        at += 1 + usize::from(escapes);
    }
    bytes.len()
}

/// The text with what is escaped standing for itself.
fn unescaped<'t>(text: &'t str, special: &[u8]) -> Cow<'t, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        let is_special = |next: &char| u8::try_from(*next).is_ok_and(|next| special.contains(&next));
        let escaped = if character == '\\' { rest.next_if(is_special) } else { None };
        out.push(escaped.unwrap_or(character));
    }
    Cow::Owned(out)
}

impl LineError {
    /// Of a body that is no UTF-8 from `offset` on.
    pub fn not_utf8(body: &[u8], offset: usize) -> LineError {
        let line = 1 + body[..offset.min(body.len())].iter().filter(|byte| **byte == b'\n').count();
        LineError { line, cause: LineCause::Expected("UTF-8") }
    }
}

impl fmt::Display for LineError {
    /// Telegraf sends a batch again and again unless the answer says that it cannot be parsed, in these words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unable to parse line {}: ", self.line)?;
        match &self.cause {
            LineCause::Expected(expected) => write!(f, "expected {expected}"),
            LineCause::Label(error) => error.fmt(f),
            LineCause::Time(refusal) => write!(f, "{refusal}; is precision= as the sender counts?"),
        }
    }
}

impl std::error::Error for LineError {}

#[cfg(test)]
mod tests;
