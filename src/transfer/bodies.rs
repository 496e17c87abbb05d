//! A file of lines as bodies of bounded size, each of whole lines.

use std::io::{self, BufRead, Read as _};

/// See the head of this file.
pub struct Bodies<R> {
    reader: R,
    /// The first line stands before each body.
    has_header: bool,
    header: Vec<u8>,
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
    pub fn new(reader: R, has_header: bool, bytes_max: usize) -> Bodies<R> {
        let (header, body, ahead) = (Vec::new(), Vec::new(), Vec::new());
        Bodies { reader, has_header, header, body, bytes_max, lines: 0, ahead }
    }

    /// The next body; none behind the last line.
    pub fn next(&mut self) -> io::Result<Option<Body<'_>>> {
        if self.has_header && self.header.is_empty() && self.read_line()? {
            std::mem::swap(&mut self.header, &mut self.ahead);
            self.ahead.clear();
        }
        self.body.clear();
        self.body.extend_from_slice(&self.header);
        let first_line = self.lines + u64::from(self.ahead.is_empty());
        let mut has_line = false;
        while !self.ahead.is_empty() || self.read_line()? {
            if has_line && self.body.len() + self.ahead.len() > self.bytes_max {
                break;
            }
            self.body.append(&mut self.ahead);
            has_line = true;
        }
        Ok(has_line.then_some(Body { bytes: &self.body, first_line }))
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

    fn bodies(text: &str, has_header: bool, bytes_max: usize) -> Vec<(String, u64)> {
        let mut bodies = Bodies::new(text.as_bytes(), has_header, bytes_max);
        let mut all = Vec::new();
        while let Some(body) = bodies.next().unwrap() {
            all.push((String::from_utf8(body.bytes.to_vec()).unwrap(), body.first_line));
        }
        all
    }

    #[test]
    fn bodies_are_whole_lines_and_each_begins_with_the_header() {
        let all = bodies("one\ntwo\nthree\nfour", false, 9);
        assert_eq!(all, [("one\ntwo\n".into(), 1), ("three\n".into(), 3), ("four\n".into(), 4)]);
        let all = bodies("head\none\ntwo\nthree\n", true, 14);
        assert_eq!(all, [("head\none\ntwo\n".into(), 2), ("head\nthree\n".into(), 4)]);
        assert_eq!(bodies("", true, 10), []);
        assert_eq!(bodies("head\n", true, 10), []);
        let mut endless = Bodies::new(&b"aaaaaaaaaaaaaaaaaaaa"[..], false, 10);
        assert!(endless.next().is_err());
    }
}
