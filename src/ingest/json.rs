//! JSON pulled from a text piece by piece, each refusal with its offset and what was expected there.
//!
//! Always: exactly the grammar of RFC 8259, and nothing is skipped unread: keys and values that nobody asked
//! for are checked like the others. No recursion: an ignored value nests up to [`NESTING_MAX`] deep.
//! Strings without escapes stay where they are in the body; the others are unescaped into a buffer that the
//! caller lends, so a [`Text`] says in which of the two it lies.
//! Not here: what a key means (`metrics.rs`).
//! Read next: `json/number.rs` for exact numbers.

mod number;
pub(crate) use number::{Number, WholeError};

/// Levels of objects and arrays inside one ignored value.
pub const NESTING_MAX: u32 = 64;

/// Bytes of an escaped string that are kept; whatever is longer than this is refused by every rule that
/// strings meet later, so the rest need not be stored for the refusal to be right.
pub(crate) const UNESCAPED_BYTES_MAX: usize = 8 * 1024;

const _: () = assert!(UNESCAPED_BYTES_MAX > model::LABEL_VALUE_BYTES_MAX);
const _: () = assert!(UNESCAPED_BYTES_MAX > model::METRIC_NAME_BYTES_MAX);

/// The text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Bytes from the start of the body.
    pub(crate) offset: usize,
    /// What would have been right there.
    pub(crate) expected: &'static str,
}

/// A string, by where its characters lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    start: usize,
    end: usize,
    is_unescaped: bool,
}

impl Text {
    /// The characters, out of the body or of the buffer into which it was unescaped.
    #[inline]
    pub(crate) fn get<'t>(self, body: &'t str, unescaped: &'t str) -> &'t str {
        let source = if self.is_unescaped { unescaped } else { body };
        source.get(self.start..self.end).expect("a text is cut at quotes and whole characters")
    }

    /// The characters if they lie in the body itself.
    pub(crate) fn in_body(self, body: &str) -> Option<&str> {
        if self.is_unescaped { None } else { body.get(self.start..self.end) }
    }
}

/// What kind of value begins here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// A place in a body.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'b> {
    body: &'b str,
    at: usize,
}

const VALUE: &str = "a value";
const FINITE: &str = "a finite number (JSON has no NaN and no infinities)";
const ESCAPE: &str = r#"one of "\/bfnrtu after a backslash"#;
const HEX: &str = "four hexadecimal digits";
const LOW_SURROGATE: &str = "the second half of a surrogate pair";

impl<'b> Reader<'b> {
    pub(crate) fn new(body: &'b str) -> Reader<'b> {
        Reader { body, at: 0 }
    }

    /// At a place where a value that was read before begins.
    pub(crate) fn at(body: &'b str, offset: usize) -> Reader<'b> {
        Reader { body, at: offset }
    }

    pub(crate) fn body(&self) -> &'b str {
        self.body
    }

    /// Bytes from the start of the body.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// A refusal at this place.
    #[cold]
    pub(crate) fn expected(&self, expected: &'static str) -> SyntaxError {
        SyntaxError { offset: self.at, expected }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.body.as_bytes().get(self.at).copied()
    }

    #[inline]
    pub(crate) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Enters the object or array whose first byte is here.
    #[inline]
    pub(crate) fn enter(&mut self) {
        self.at += 1;
    }

    /// The next key of the object that was entered, with its colon passed; `None` past the closing brace.
    #[inline(always)]
    pub(crate) fn next_key(
        &mut self,
        is_first: &mut bool,
        unescaped: &mut String,
    ) -> Result<Option<Text>, SyntaxError> {
        self.skip_space();
        if self.take(b'}') {
            return Ok(None);
        }
        if std::mem::take(is_first) {
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key or '}'"));
            }
        } else {
            self.comma("',' or '}'")?;
        }
        let key = self.key(unescaped)?;
        Ok(Some(key))
    }

    /// Whether another element of the array that was entered begins here; `false` past the closing bracket.
    #[inline]
    pub(crate) fn next_element(&mut self, is_first: &mut bool) -> Result<bool, SyntaxError> {
        self.skip_space();
        if self.take(b']') {
            return Ok(false);
        }
        if !std::mem::take(is_first) {
            self.comma("',' or ']'")?;
        }
        Ok(true)
    }

    #[inline]
    fn comma(&mut self, expected: &'static str) -> Result<(), SyntaxError> {
        if !self.take(b',') {
            return Err(self.expected(expected));
        }
        self.skip_space();
        Ok(())
    }

    #[inline(always)]
    fn key(&mut self, unescaped: &mut String) -> Result<Text, SyntaxError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in double quotes"));
        }
        let key = self.string(unescaped)?;
        self.skip_space();
        if !self.take(b':') {
            return Err(self.expected("':'"));
        }
        self.skip_space();
        Ok(key)
    }

    /// What kind of value begins here. It is not passed, only its first byte was looked at.
    #[inline]
    pub(crate) fn begins(&self) -> Result<Begins, SyntaxError> {
        match self.peek() {
            Some(b'0'..=b'9' | b'-') => Ok(Begins::Number),
            Some(b'"') => Ok(Begins::String),
            Some(b'{') => Ok(Begins::Object),
            Some(b'[') => Ok(Begins::Array),
            Some(b't') => Ok(Begins::True),
            Some(b'f') => Ok(Begins::False),
            Some(b'n') if self.rest().starts_with(b"nu") => Ok(Begins::Null),
            Some(_) if is_no_finite_number(self.rest()) => Err(self.expected(FINITE)),
            Some(b'+') => Err(self.expected("a number without '+'")),
            Some(b'.') => Err(self.expected("a digit before '.'")),
            Some(b'\'') => Err(self.expected("a value (strings stand in double quotes)")),
            _ => Err(self.expected(VALUE)),
        }
    }

    /// What was not read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &'b [u8] {
        self.body.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Passes these bytes if they lie here.
    #[inline]
    pub(crate) fn take_all(&mut self, bytes: &[u8]) -> bool {
        let found = self.rest().starts_with(bytes);
        self.at += if found { bytes.len() } else { 0 };
        found
    }

    /// Passes a value whose bytes are known to lie here.
    #[inline]
    pub(crate) fn pass(&mut self, len: usize) {
        self.at += len;
    }

    /// Passes `true`, `false` or `null`.
    pub(crate) fn literal(&mut self, literal: &'static str) -> Result<(), SyntaxError> {
        if !self.rest().starts_with(literal.as_bytes()) {
            return Err(self.expected(literal));
        }
        self.at += literal.len();
        Ok(())
    }

    /// Passes the number that begins here.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<Number<'b>, SyntaxError> {
        let (number, len) = number::lex(self.body, self.at)?;
        self.at += len;
        Ok(number)
    }

    /// Passes the string that begins here.
    #[inline(always)]
    pub(crate) fn string(&mut self, unescaped: &mut String) -> Result<Text, SyntaxError> {
        let start = self.at + 1;
        self.at = plain_end(self.body.as_bytes(), start);
        if self.take(b'"') {
            return Ok(Text { start, end: self.at - 1, is_unescaped: false });
        }
        self.escaped_string(start, unescaped)
    }

    /// The rest of a string in which something else than a plain character was met.
    #[cold]
    fn escaped_string(&mut self, start: usize, unescaped: &mut String) -> Result<Text, SyntaxError> {
        let begin = unescaped.len();
        let mut plain_from = start;
        loop {
            keep(unescaped, begin, &self.body[plain_from..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Text { start: begin, end: unescaped.len(), is_unescaped: true });
                }
                Some(b'\\') => {
                    self.at += 1;
                    let character = self.escape()?;
                    keep(unescaped, begin, character.encode_utf8(&mut [0; 4]));
                }
                Some(_) => return Err(self.expected("an escape for the control character")),
                None => return Err(self.expected("'\"'")),
            }
            plain_from = self.at;
            self.at = plain_end(self.body.as_bytes(), self.at);
        }
    }

    /// The character that an escape stands for; the backslash is passed.
    fn escape(&mut self) -> Result<char, SyntaxError> {
        let character = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.expected(ESCAPE)),
        };
        self.at += 1;
        Ok(character)
    }

    /// One `XXXX`, or a surrogate pair `XXXX\uXXXX`; the first `\u` is passed.
    fn unicode_escape(&mut self) -> Result<char, SyntaxError> {
        let start = self.at;
        let mut code = self.four_hex()?;
        if (0xd800..0xdc00).contains(&code) {
            if !self.rest().starts_with(b"\\u") {
                return Err(self.expected(LOW_SURROGATE));
            }
            self.at += 2;
            let second = self.at;
            let low = self.four_hex()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(SyntaxError { offset: second, expected: LOW_SURROGATE });
            }
            code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        // What is left to refuse is a second half without its first.
        char::from_u32(code)
            .ok_or(SyntaxError { offset: start, expected: "the first half of a surrogate pair" })
    }

    fn four_hex(&mut self) -> Result<u32, SyntaxError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code = code << 4 | digit.ok_or_else(|| self.expected(HEX))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Passes a value of any kind, checking it to its end.
    pub(crate) fn skip_value(&mut self, unescaped: &mut String) -> Result<(), SyntaxError> {
        // Nothing of what is passed is kept, so the buffer ends as it was.
        let kept = unescaped.len();
        // One bit a level, the innermost lowest: 1 for an object, 0 for an array.
        let mut objects = 0u64;
        let mut depth = 0;
        loop {
            let begins = self.begins()?;
            let mut is_first = false;
            match begins {
                Begins::Number => drop(self.number()?),
                Begins::String => drop(self.string(unescaped)?),
                Begins::True => self.literal("true")?,
                Begins::False => self.literal("false")?,
                Begins::Null => self.literal("null")?,
                Begins::Object | Begins::Array => {
                    if depth == NESTING_MAX {
                        return Err(self.expected("no more than 64 levels of nesting"));
                    }
                    depth += 1;
                    objects = objects << 1 | u64::from(begins == Begins::Object);
                    self.enter();
                    is_first = true;
                }
            }
            // Close what ends here, until another value must follow.
            while depth > 0 {
                let goes_on = if objects & 1 == 1 {
                    let key = self.next_key(&mut is_first, unescaped)?;
                    unescaped.truncate(kept);
                    key.is_some()
                } else {
                    self.next_element(&mut is_first)?
                };
                if goes_on {
                    break;
                }
                is_first = false;
                depth -= 1;
                objects >>= 1;
            }
            unescaped.truncate(kept);
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

const _: () = assert!(NESTING_MAX <= u64::BITS);

/// Whether the text begins as other tongues write what is no finite number.
fn is_no_finite_number(text: &[u8]) -> bool {
    text.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"nan") || word.eq_ignore_ascii_case(b"inf"))
}

/// Appends to a string that began at `begin`, up to the bound of what is kept of it.
fn keep(unescaped: &mut String, begin: usize, more: &str) {
    let room = UNESCAPED_BYTES_MAX.saturating_sub(unescaped.len() - begin);
    let more = more.get(..room).unwrap_or_else(|| {
        // Too long: fill up, so that the length tells of it, and stay on whole characters.
        let end = more.len().min(room);
        &more[..more.floor_char_boundary(end)]
    });
    unescaped.push_str(more);
}

/// Where from `at` on the first byte stands that is no plain character of a string: a quote, a backslash, a
/// control character, or the end. Eight bytes at a time; the twin in the tests goes byte by byte.
#[inline(always)]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        // Subtracting marks a byte's high bit where the byte was below; a borrow can only mark wrongly above
        // a right mark, and only the lowest mark is used.
        let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHS;
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | below(word, 0x20);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plain_end_is_what_byte_by_byte_finds(bytes in proptest::collection::vec(
            prop_oneof![8 => 0x20u8..=0xff, 1 => Just(b'"'), 1 => Just(b'\\'), 1 => 0u8..0x22], 0..40,
        )) {
            let naive = bytes.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(bytes.len());
            prop_assert_eq!(plain_end(&bytes, 0), naive);
        }

        /// Kept is what was there, up to the bound, and never half a character.
        #[test]
        fn long_escaped_strings_are_cut_at_the_bound(pieces in proptest::collection::vec("[a☃]{0,3000}", 0..8)) {
            let mut kept = "before".to_owned();
            for piece in &pieces {
                keep(&mut kept, 6, piece);
            }
            let whole = pieces.concat();
            let kept = &kept[6..];
            prop_assert!(whole.starts_with(kept) || whole.len() > UNESCAPED_BYTES_MAX);
            prop_assert_eq!(kept.len() == whole.len(), whole.len() <= UNESCAPED_BYTES_MAX);
            prop_assert!(kept.len() > UNESCAPED_BYTES_MAX - 4 || kept.len() == whole.len());
        }
    }
}
