//! A file of lines as bodies of bounded size, each of whole lines.

use std::io::{self, BufRead, Read as _};

/// What is said once in a file and meant for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing.
    Lines,
    /// The first line stands before each body.
    Header,
    /// The last `# TYPE` line of the bodies before stands before each body.
    Types,
    /// The same, and the last line is `# EOF`: without it the file was cut, perhaps inside a number.
    TypesToEof,
}

/// See the head of this file.
pub struct Bodies<R> {
    reader: R,
    frame: Frame,
    /// What stands before the next body.
    header: Vec<u8>,
    /// Whether the last line that says something is `# EOF`.
    ends: bool,
    body: Vec<u8>,
    bytes_max: usize,
    /// Lines read so far.
    lines: u64,
    /// Read, and no part of a body yet.
    ahead: Vec<u8>,
}

/// A body to be sent.
pub struct Body<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Where it begins in the file, from 1.
    pub first_line: u64,
}

impl<R: BufRead> Bodies<R> {
    /// Bodies of at most so many bytes, but for one line that is longer by itself.
    pub fn new(reader: R, frame: Frame, bytes_max: usize) -> Bodies<R> {
        let (header, body, ahead) = (Vec::new(), Vec::new(), Vec::new());
        Bodies { reader, frame, header, ends: false, body, bytes_max, lines: 0, ahead }
    }

    /// The next body; none behind the last line.
    pub fn next(&mut self) -> io::Result<Option<Body<'_>>> {
        if self.frame == Frame::Header && self.header.is_empty() && self.read_line()? {
            std::mem::swap(&mut self.header, &mut self.ahead);
            self.ahead.clear();
        }
        self.body.clear();
        self.body.extend_from_slice(&self.header);
        let first_line = self.lines + u64::from(self.ahead.is_empty());
        let mut has_line = false;
        while !self.ahead.is_empty() || self.read_line()? {
            if has_line && self.body.len() + self.ahead.len() > self.bytes_max {
                return Ok(Some(Body { bytes: &self.body, first_line }));
            }
            self.note_line();
            self.body.append(&mut self.ahead);
            has_line = true;
        }
        if self.frame == Frame::TypesToEof && !self.ends {
            let why = "the last line is not # EOF, so the file is not whole";
            let why = format!("lines {first_line} and on were not taken: {why}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(has_line.then_some(Body { bytes: &self.body, first_line }))
    }

    /// Looks at the line that is to be part of the body.
    fn note_line(&mut self) {
        if !matches!(self.frame, Frame::Types | Frame::TypesToEof) {
            return;
        }
        let line = self.ahead.trim_ascii();
        if !line.is_empty() {
            self.ends = line == b"# EOF";
        }
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if words.take(2).eq([&b"#"[..], b"TYPE"]) {
            self.header.clone_from(&self.ahead);
        }
    }

    fn read_line(&mut self) -> io::Result<bool> {
        // A file without lines is no reason to take all of it into memory.
        let bytes_max = self.bytes_max as u64;
        let read = self.reader.by_ref().take(bytes_max).read_until(b'\n', &mut self.ahead)?;
        self.lines += u64::from(read > 0);
        if read > 0 && self.ahead.last() != Some(&b'\n') {
            if read as u64 == bytes_max {
                let why = format!("line {} is longer than a request", self.lines);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            self.ahead.push(b'\n');
        }
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(text: &str, frame: Frame, bytes_max: usize) -> Vec<(String, u64)> {
        let mut bodies = Bodies::new(text.as_bytes(), frame, bytes_max);
        let mut all = Vec::new();
        while let Some(body) = bodies.next().unwrap() {
            all.push((String::from_utf8(body.bytes.to_vec()).unwrap(), body.first_line));
        }
        all
    }

    #[test]
    fn bodies_are_whole_lines_and_each_begins_with_the_header() {
        let all = bodies("one\ntwo\nthree\nfour", Frame::Lines, 9);
        assert_eq!(all, [("one\ntwo\n".into(), 1), ("three\n".into(), 3), ("four\n".into(), 4)]);
        let all = bodies("head\none\ntwo\nthree\n", Frame::Header, 14);
        assert_eq!(all, [("head\none\ntwo\n".into(), 2), ("head\nthree\n".into(), 4)]);
        assert_eq!(bodies("", Frame::Header, 10), []);
        assert_eq!(bodies("head\n", Frame::Header, 10), []);
        let mut endless = Bodies::new(&b"aaaaaaaaaaaaaaaaaaaa"[..], Frame::Lines, 10);
        assert!(endless.next().is_err());
    }

    /// Else what follows a cut would be of another type.
    #[test]
    fn each_body_begins_with_the_type_at_hand() {
        let all = bodies("# TYPE a counter\na 1\na 2\n#  TYPE b counter\nb 1\nb 2\n", Frame::Types, 24);
        let texts: Vec<&str> = all.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "# TYPE a counter\na 1\n",
                "# TYPE a counter\na 2\n",
                "# TYPE a counter\n#  TYPE b counter\n",
                "#  TYPE b counter\nb 1\n",
                "#  TYPE b counter\nb 2\n"
            ]
        );
        assert_eq!(all.iter().map(|(_, line)| *line).collect::<Vec<_>>(), [1, 3, 4, 5, 6]);
    }

    #[test]
    fn the_rest_of_a_cut_openmetrics_file_is_no_body() {
        let all = bodies("a 1\na 2\n# EOF\n\n", Frame::TypesToEof, 9);
        assert_eq!(all.len(), 2);
        for cut in ["a 1\na 2\na 1", "a 1\na 2\n# EO", ""] {
            let mut bodies = Bodies::new(cut.as_bytes(), Frame::TypesToEof, 9);
            let first = bodies.next();
            if cut.is_empty() {
                assert!(first.is_err());
                continue;
            }
            assert_eq!(first.unwrap().unwrap().bytes, b"a 1\na 2\n");
            let told = bodies.next().err().expect("it is cut").to_string();
            assert!(told.starts_with("lines 3 and on were not taken"), "{told}");
        }
    }
}
