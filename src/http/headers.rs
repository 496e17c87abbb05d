//! The header lines of one message, looked up where they lie.
//!
//! No table is built: most lookups are for headers that did not come, and one 64-bit word answers those.
//! Each name sets the bit that its length, first and last letter choose; a lookup reads the lines only when its
//! own bit is set.

use std::fmt;

/// The header lines of a message, already checked.
#[derive(Clone, Copy)]
pub struct Headers<'b> {
    /// The lines, each with its CRLF, without the blank one.
    lines: &'b [u8],
    names: u64,
}

impl<'b> Headers<'b> {
    /// Takes checked lines, each ending in CRLF and holding no other CR.
    pub(crate) fn new(lines: &'b [u8], names: u64) -> Headers<'b> {
        Headers { lines, names }
    }

    /// The value of the first line of that name, in any case, without the white space around it.
    /// The bytes may be anything but control characters; they need not be UTF-8.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        if self.names & name_bit(name) == 0 {
            return None;
        }
        self.find(name.as_bytes())
    }

    /// The values of all lines of that name, in their order: lines of a list are one list (RFC 9110 §5.3).
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        let mut rest = if self.names & name_bit(name) == 0 { &[][..] } else { self.lines };
        std::iter::from_fn(move || {
            let (value, behind) = next_of(name.as_bytes(), rest)?;
            rest = behind;
            Some(value)
        })
    }

    fn find(&self, name: &[u8]) -> Option<&'b [u8]> {
        next_of(name, self.lines).map(|(value, _)| value)
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.escape_ascii().to_string())
    }
}

/// The value of the first line of that name, and the lines behind it.
fn next_of<'b>(name: &[u8], mut lines: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
    while let Some(end) = memchr::memchr(b'\r', lines) {
        let line = &lines[..end];
        let behind = lines.get(end + 2..).unwrap_or_default();
        if line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name) {
            return Some((without_white_space(&line[name.len() + 1..]), behind));
        }
        lines = behind;
    }
    None
}

/// The bit that stands for a name, the same for every case of its letters.
#[inline]
pub(crate) fn name_bit(name: &str) -> u64 {
    let name = name.as_bytes();
    match (name.first(), name.last()) {
        (Some(first), Some(last)) => {
            1 << ((name.len() ^ usize::from(first & 0x1f) ^ (usize::from(last & 0x1f) << 1)) & 63)
        }
        _ => 0,
    }
}

/// The value without the blanks and tabs around it (OWS, RFC 9110 §5.6.3).
fn without_white_space(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list, empty ones left out.
pub(crate) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(without_white_space).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[u8]) -> Headers<'_> {
        Headers::new(lines, u64::MAX)
    }

    #[test]
    fn lookup_ignores_case_and_white_space_around_the_value() {
        let found = headers(b"Host: a\r\nX-Client-ID:\t abc \t\r\nEmpty:\r\n");
        assert_eq!(found.get("host"), Some(&b"a"[..]));
        assert_eq!(found.get("x-client-id"), Some(&b"abc"[..]));
        assert_eq!(found.get("EMPTY"), Some(&b""[..]));
    }

    #[test]
    fn lookup_wants_the_whole_name_and_takes_the_first_line() {
        let found = headers(b"Accept-Encoding: gzip\r\nX: 1\r\nx: 2\r\n");
        assert_eq!(found.get("accept"), None);
        assert_eq!(found.get("encoding"), None);
        assert_eq!(found.get(""), None);
        assert_eq!(found.get("x"), Some(&b"1"[..]));
    }

    #[test]
    fn a_name_has_one_bit_in_every_case() {
        for name in ["Host", "content-length", "X-Client-ID", "durability", "a", "x_y!"] {
            assert_eq!(name_bit(name), name_bit(&name.to_ascii_uppercase()), "{name}");
            assert_eq!(name_bit(name), name_bit(&name.to_ascii_lowercase()), "{name}");
            assert_eq!(name_bit(name).count_ones(), 1);
        }
    }

    #[test]
    fn a_list_is_split_and_trimmed() {
        let members: Vec<&[u8]> = list_members(b" close ,, Keep-Alive,\tx").collect();
        assert_eq!(members, [&b"close"[..], b"Keep-Alive", b"x"]);
    }
}
