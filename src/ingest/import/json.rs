//! A line that is a JSON object.

use super::{ImportCause, ImportDecoder, Reading, kind_of, millis_of, nth_of, value_of};
use crate::json::{Begins, Reader, SyntaxError, Text};
use model::{LABELS_MAX, LabelError, MetricKind};

const TEXT: &str = "a text";

impl From<SyntaxError> for ImportCause {
    fn from(error: SyntaxError) -> ImportCause {
        ImportCause::Expected(error.expected)
    }
}

impl ImportDecoder {
    /// Reads one object. Unknown keys are passed; of a repeated one the last counts.
    pub(super) fn json_line(&mut self, line: &str) -> Result<Reading, ImportCause> {
        let (mut name, mut value, mut millis) = (None, None, None);
        let (mut kind, mut nth) = (MetricKind::default(), 0);
        self.unescaped.clear();
        self.labels.clear();
        let mut reader = Reader::new(line);
        reader.skip_space();
        if reader.peek() != Some(b'{') {
            return Err(ImportCause::Expected("a JSON object a line"));
        }
        reader.enter();
        let mut is_first = true;
        while let Some(key) = reader.next_key(&mut is_first, &mut self.unescaped)? {
            match key.get(line, &self.unescaped) {
                "name" => name = Some(self.text(&mut reader)?),
                "value" => value = Some(self.json_value(&mut reader)?),
                "timestamp" => millis = self.json_time(&mut reader)?,
                "nth" => nth = nth_of(whole(&mut reader)?)?,
                "type" => kind = kind_of(self.text(&mut reader)?.get(line, &self.unescaped))?,
                "labels" => self.json_labels(&mut reader)?,
                _ => reader.skip_value(&mut self.unescaped)?,
            }
        }
        reader.skip_space();
        if reader.peek().is_some() {
            return Err(ImportCause::Expected("the end of the line behind the object"));
        }
        let name = name.ok_or(ImportCause::Expected("the key name"))?;
        let value = value.ok_or(ImportCause::Expected("the key value"))?;
        self.builder.begin(name.get(line, &self.unescaped)).map_err(ImportCause::Label)?;
        for (label, of) in &self.labels {
            let (label, of) = (label.get(line, &self.unescaped), of.get(line, &self.unescaped));
            self.builder.push(label, of).map_err(ImportCause::Label)?;
        }
        Ok(Reading { value, kind, millis, nth })
    }

    fn text(&mut self, reader: &mut Reader<'_>) -> Result<Text, ImportCause> {
        if reader.begins()? != Begins::String {
            return Err(ImportCause::Expected(TEXT));
        }
        Ok(reader.string(&mut self.unescaped)?)
    }

    fn json_value(&mut self, reader: &mut Reader<'_>) -> Result<f64, ImportCause> {
        match reader.begins()? {
            Begins::Number => {
                let number = reader.number()?.to_f64();
                if number.is_finite() { Ok(number) } else { Err(ImportCause::Expected("a finite number")) }
            }
            Begins::String => {
                let text = reader.string(&mut self.unescaped)?;
                value_of(text.get(reader.body(), &self.unescaped))
            }
            Begins::True => Ok(reader.literal("true").map(|()| 1.0)?),
            Begins::False => Ok(reader.literal("false").map(|()| 0.0)?),
            _ => Err(ImportCause::Expected(super::VALUE)),
        }
    }

    fn json_time(&mut self, reader: &mut Reader<'_>) -> Result<Option<i64>, ImportCause> {
        match reader.begins()? {
            Begins::Null => Ok(reader.literal("null").map(|()| None)?),
            Begins::String => {
                let text = reader.string(&mut self.unescaped)?;
                millis_of(text.get(reader.body(), &self.unescaped)).map(Some)
            }
            _ => whole(reader).map(Some),
        }
    }

    fn json_labels(&mut self, reader: &mut Reader<'_>) -> Result<(), ImportCause> {
        self.labels.clear();
        match reader.begins()? {
            Begins::Null => return Ok(reader.literal("null")?),
            Begins::Object => {}
            _ => return Err(ImportCause::Expected("labels as an object of texts")),
        }
        reader.enter();
        let mut is_first = true;
        while let Some(label) = reader.next_key(&mut is_first, &mut self.unescaped)? {
            let value = self.text(reader)?;
            if self.labels.len() == LABELS_MAX {
                return Err(ImportCause::Label(LabelError::TooManyLabels));
            }
            self.labels.push((label, value));
        }
        Ok(())
    }

    /// Labels as an object, in a text of their own: the builder has begun.
    pub(super) fn labels_text(&mut self, text: &str) -> Result<(), ImportCause> {
        self.unescaped.clear();
        let mut reader = Reader::new(text);
        self.json_labels(&mut reader)?;
        reader.skip_space();
        if reader.peek().is_some() {
            return Err(ImportCause::Expected("labels as one object of texts"));
        }
        for (label, of) in &self.labels {
            let (label, of) = (label.get(text, &self.unescaped), of.get(text, &self.unescaped));
            self.builder.push(label, of).map_err(ImportCause::Label)?;
        }
        Ok(())
    }
}

fn whole(reader: &mut Reader<'_>) -> Result<i64, ImportCause> {
    const WHOLE: &str = "a whole number";
    if reader.begins()? != Begins::Number {
        return Err(ImportCause::Expected(WHOLE));
    }
    reader.number()?.to_whole().map_err(|_| ImportCause::Expected(WHOLE))
}
