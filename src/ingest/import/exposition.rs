//! A line of text exposition, Prometheus' or OpenMetrics': they differ in how they count time.

use super::{ImportCause, ImportDecoder, ImportForm, Reading, value_of};
use model::MetricKind;

/// Whose samples follow, as the last `# TYPE` said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Family<'a> {
    name: &'a str,
    kind: MetricKind,
}

/// What a sample's name has behind its family's.
const SUFFIXES: [&str; 6] = ["", "_total", "_bucket", "_count", "_sum", "_created"];

impl<'a> Family<'a> {
    fn of_comment(comment: &'a str) -> Option<Family<'a>> {
        let mut words = comment.split_ascii_whitespace();
        let (word, name, kind) = (words.next()?, words.next()?, words.next()?);
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
        let kind = match kind {
            // What is counted so has buckets as the other has.
            "gaugehistogram" => MetricKind::Histogram,
            kind => MetricKind::from_name(kind).unwrap_or_default(),
        };
        (word == "TYPE").then_some(Family { name, kind })
    }

    fn kind_of(&self, name: &str) -> MetricKind {
        let behind = name.strip_prefix(self.name).filter(|_| !self.name.is_empty());
        if behind.is_some_and(|behind| SUFFIXES.contains(&behind)) {
            self.kind
        } else {
            MetricKind::default()
        }
    }
}

impl ImportDecoder {
    /// Reads a line; a comment is no sample.
    pub(super) fn exposition_line<'a>(
        &mut self,
        line: &'a str,
        form: ImportForm,
        family: &mut Family<'a>,
    ) -> Result<Option<Reading>, ImportCause> {
        let line = line.trim_ascii();
        if let Some(comment) = line.strip_prefix('#') {
            *family = Family::of_comment(comment).unwrap_or(*family);
            return Ok(None);
        }
        let name_len = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_len);
        let mut kind = family.kind_of(name);
        if !name.is_empty() {
            self.builder.begin(name).map_err(ImportCause::Label)?;
        }
        let rest = match rest.strip_prefix('{') {
            None => rest,
            Some(labels) => {
                self.exposition_labels(labels, name.is_empty(), |name| kind = family.kind_of(name))?
            }
        };
        // What stands behind the mark is an example.
        let rest = rest.split_once(" # ").map_or(rest, |(sample, _)| sample);
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().ok_or(ImportCause::Expected(super::VALUE))?;
        let value = value_of_exposition(value)?;
        let (millis, nth) = match words.next() {
            None => (None, 0),
            Some(time) if form == ImportForm::OpenMetrics => {
                seconds(time).map(|(millis, nth)| (Some(millis), nth))?
            }
            Some(time) => {
                let millis = time.parse().map_err(|_| ImportCause::Expected("a time in milliseconds"))?;
                (Some(millis), 0)
            }
        };
        match words.next() {
            None => Ok(Some(Reading { value, kind, millis, nth })),
            Some(_) => Err(ImportCause::Expected("the end of the line behind the time")),
        }
    }

    /// Reads labels up to their closing brace, and gives what stands behind it. With `is_nameless` the first of them
    /// is the metric's name in quotes, by itself.
    fn exposition_labels<'a>(
        &mut self,
        labels: &'a str,
        mut is_nameless: bool,
        mut named: impl FnMut(&str),
    ) -> Result<&'a str, ImportCause> {
        let mut rest = labels.trim_ascii_start();
        let ends = |rest: &'a str| rest.strip_prefix('}');
        loop {
            if let Some(behind) = ends(rest) {
                return if is_nameless { Err(ImportCause::Expected("a metric name")) } else { Ok(behind) };
            }
            self.unescaped.clear();
            let is_quoted = rest.starts_with('"');
            let label_end;
            if is_quoted {
                rest = take_quoted(rest, &mut self.unescaped)?;
                label_end = self.unescaped.len();
            } else {
                let len = rest.find(['=', ' ', ',', '}', '"']).unwrap_or(rest.len());
                self.unescaped.push_str(&rest[..len]);
                rest = &rest[len..];
                label_end = len;
            }
            rest = rest.trim_ascii_start();
            match rest.strip_prefix('=') {
                None if is_nameless && is_quoted => {
                    self.builder.begin(&self.unescaped).map_err(ImportCause::Label)?;
                    named(&self.unescaped);
                    is_nameless = false;
                }
                None => return Err(ImportCause::Expected("= behind the name of a label")),
                Some(_) if is_nameless => {
                    return Err(ImportCause::Expected("a metric name before its labels"));
                }
                Some(behind) => {
                    rest = take_quoted(behind.trim_ascii_start(), &mut self.unescaped)?;
                    let (label, value) = self.unescaped.split_at(label_end);
                    self.builder.push(label, value).map_err(ImportCause::Label)?;
                }
            }
            rest = rest.trim_ascii_start();
            rest = match rest.strip_prefix(',') {
                Some(behind) => behind.trim_ascii_start(),
                None if rest.starts_with('}') => rest,
                None => return Err(ImportCause::Expected("a comma or the closing brace behind a label")),
            };
        }
    }
}

/// Appends what stands in the quotes that begin here, escapes as themselves; gives what follows.
fn take_quoted<'a>(text: &'a str, out: &mut String) -> Result<&'a str, ImportCause> {
    let mut rest = text.strip_prefix('"').ok_or(ImportCause::Expected("a value in quotes"))?;
    loop {
        let at = rest.find(['"', '\\']).ok_or(ImportCause::Expected("the quote that ends a value"))?;
        out.push_str(&rest[..at]);
        let found = &rest[at..];
        if let Some(behind) = found.strip_prefix('"') {
            return Ok(behind);
        }
        let escaped =
            found[1..].chars().next().ok_or(ImportCause::Expected("the quote that ends a value"))?;
        match escaped {
            'n' => out.push('\n'),
            '"' | '\\' => out.push(escaped),
            other => out.extend(['\\', other]),
        }
        rest = &found[1 + escaped.len_utf8()..];
    }
}

/// As clients in many languages write it: words in any case.
fn value_of_exposition(text: &str) -> Result<f64, ImportCause> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("nan") {
        Ok(f64::NAN)
    } else if is("inf") || is("+inf") || is("infinity") || is("+infinity") {
        Ok(f64::INFINITY)
    } else if is("-inf") || is("-infinity") {
        Ok(f64::NEG_INFINITY)
    } else {
        value_of(text)
    }
}

/// Seconds as milliseconds and the nanoseconds beyond them, rounded towards the past.
fn seconds(text: &str) -> Result<(i64, u32), ImportCause> {
    const EXPECTED: ImportCause = ImportCause::Expected("a time in seconds");
    /// Beyond it no nanosecond fits 64 bits.
    const SECONDS_MAX: i64 = i64::MAX / 1_000_000_000 - 1;
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let nanos = if is_plain(whole) && is_plain(fraction) && !whole.is_empty() {
        let whole: i64 = whole.parse().map_err(|_| EXPECTED)?;
        let places = fraction.bytes().map(|byte| i64::from(byte - b'0')).chain(std::iter::repeat(0));
        let nanos = places.take(9).fold(0, |nanos, digit| nanos * 10 + digit);
        if whole > SECONDS_MAX { return Err(EXPECTED) } else { whole * 1_000_000_000 + nanos }
    } else {
        // With an exponent: as exact as a double is.
        let seconds: f64 = digits.parse().map_err(|_| EXPECTED)?;
        let fits = seconds.is_finite() && (0.0..=SECONDS_MAX as f64).contains(&seconds);
        if fits { (seconds * 1e3).round() as i64 * 1_000_000 } else { return Err(EXPECTED) }
    };
    let nanos = if is_negative { -nanos } else { nanos };
    Ok((nanos.div_euclid(1_000_000), nanos.rem_euclid(1_000_000) as u32))
}
