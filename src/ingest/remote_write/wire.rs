//! Protocol buffers on the wire, walked where they lie: a part of a body that is read field by field.
//!
//! Always: no read passes the end of its part; a number that the format does not allow is an error, and so are groups,
//! which no message of ours has.

/// The bytes are no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Bytes from the start of the body.
    pub(super) offset: usize,
    /// What would have been right there.
    pub(super) expected: &'static str,
}

/// How a field's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// The rest of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire<'b> {
    body: &'b [u8],
    at: usize,
    end: usize,
}

impl<'b> Wire<'b> {
    /// The whole of a body.
    pub(super) fn new(body: &'b [u8]) -> Wire<'b> {
        Wire { body, at: 0, end: body.len() }
    }

    /// A part of a body that [`Wire::take`] gave.
    pub(super) fn again(body: &'b [u8], at: usize, end: usize) -> Wire<'b> {
        Wire { body, at, end }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// Where it stands in the body.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn end(&self) -> usize {
        self.end
    }

    #[inline]
    pub(super) fn rest(&self) -> &'b [u8] {
        &self.body[self.at..self.end]
    }

    /// Passes bytes that are known to be there.
    #[inline]
    pub(super) fn pass(&mut self, bytes: usize) {
        self.at = self.end.min(self.at + bytes);
    }

    /// The number of the next field and how it is written.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<(u32, Kind), Malformed> {
        let offset = self.at;
        let wrong = |expected| Malformed { offset, expected };
        let tag = u32::try_from(self.varint()?).map_err(|_| wrong("a field number below 2^29"))?;
        let kind = match tag & 7 {
            0 => Kind::Varint,
            1 => Kind::Fixed64,
            2 => Kind::Bytes,
            5 => Kind::Fixed32,
            _ => return Err(wrong("a wire type of 0, 1, 2 or 5")),
        };
        if tag < 8 { Err(wrong("a field number above 0")) } else { Ok((tag >> 3, kind)) }
    }

    /// A field that has to be written in one way was written in another.
    #[cold]
    pub(super) fn wrong_kind(&self, expected: &'static str) -> Malformed {
        Malformed { offset: self.at, expected }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.body.get(self.at) {
            Some(&byte) if byte < 0x80 && self.at < self.end => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let offset = self.at;
        let mut value = 0;
        for (at, &byte) in self.rest().iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                if at == 9 && byte > 1 {
                    return Err(Malformed { offset, expected: "a number of 64 bits" });
                }
                self.at += at + 1;
                return Ok(value);
            }
        }
        Err(Malformed { offset, expected: "a number of ten bytes at most" })
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<u64, Malformed> {
        let offset = self.at;
        match self.rest().first_chunk() {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(Malformed { offset, expected: "eight bytes" }),
        }
    }

    /// The value of a field of bytes, passed here.
    #[inline]
    pub(super) fn take(&mut self) -> Result<Wire<'b>, Malformed> {
        let offset = self.at;
        let len = self.varint()?;
        if len > (self.end - self.at) as u64 {
            return Err(Malformed { offset, expected: "as many bytes as it says" });
        }
        let part = Wire { body: self.body, at: self.at, end: self.at + len as usize };
        self.at = part.end;
        Ok(part)
    }

    /// A sample as every sender writes it: field 2 of bytes, in it the double and then the milliseconds, nothing left out.
    /// Passed, if it is that and `takes` its milliseconds; every other form, and what lies near the end of the body, is for
    /// those who read field by field.
    #[inline]
    pub(super) fn usual_sample(&mut self, takes: impl FnOnce(i64) -> bool) -> Option<(i64, f64)> {
        const HEAD_BYTES: usize = 12;
        let window: &[u8; HEAD_BYTES + 8] = self.body.get(self.at..)?.first_chunk()?;
        let [0x12, len, 0x09, value @ .., _, _, _, _, _, _, _, _] = window else { return None };
        let [value @ .., 0x10] = value else { return None };
        let word = u64::from_le_bytes(*window.last_chunk()?);
        // The top bit is off in the last byte of the number, and in none before.
        let millis_bytes = (!word & 0x8080_8080_8080_8080).trailing_zeros() as usize / 8 + 1;
        let end = self.at + HEAD_BYTES + millis_bytes;
        if millis_bytes > 8 || usize::from(*len) + 2 != HEAD_BYTES + millis_bytes || end > self.end {
            return None;
        }
        let millis = seven_bits_each(word & (u64::MAX >> (64 - 8 * millis_bytes))) as i64;
        if !takes(millis) {
            return None;
        }
        self.at = end;
        Some((millis, f64::from_bits(u64::from_le_bytes(*value))))
    }

    /// Passes the value of a field that means nothing here.
    pub(super) fn skip(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Varint => self.varint().map(|_| ()),
            Kind::Fixed64 => self.fixed64().map(|_| ()),
            Kind::Bytes => self.take().map(|_| ()),
            Kind::Fixed32 if self.end - self.at >= 4 => {
                self.at += 4;
                Ok(())
            }
            Kind::Fixed32 => Err(Malformed { offset: self.at, expected: "four bytes" }),
        }
    }
}

/// The low seven bits of each byte, next to each other.
#[inline]
fn seven_bits_each(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}
