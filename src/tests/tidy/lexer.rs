//! Just enough of Rust's lexical grammar to tell code from comments and strings.
//!
//! Always: every byte of the source belongs to at most one token; no input makes it panic or loop; what is
//! inside a comment or a literal never appears as an identifier.
//! Not here: meaning. A token is a word, a mark or a literal, and the line it starts on.

/// What a token is, with its text where the checks look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// An identifier or keyword, raw ones without their `r#`.
    Word(&'a str),
    /// One character of punctuation.
    Mark(char),
    /// The inside of a string literal of any form, escapes left as written.
    Text(&'a str),
    /// A number, a character, a byte or a lifetime: nothing that a check looks into.
    Other,
}

/// A token and the line, from 1, on which it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) line: usize,
}

impl<'a> Token<'a> {
    /// The word, if it is one.
    pub(crate) fn word(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// The inside of the string literal, if it is one.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is this character of punctuation.
    pub(crate) fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

/// The tokens of `source` in order, comments left out. An unfinished literal or comment ends with the file.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = next(rest, first);
        if let Some(kind) = kind {
            found.push(Token { kind, line });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The token that `rest` begins with (`None` for space and comments) and its length in bytes, never 0.
fn next(rest: &str, first: char) -> (Option<Kind<'_>>, usize) {
    if first.is_whitespace() {
        return (None, first.len_utf8());
    }
    if rest.starts_with("//") {
        return (None, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (None, block_comment(rest));
    }
    if let Some((text, length)) = string(rest) {
        return (Some(Kind::Text(text)), length);
    }
    if let Some(length) = quoted_character_or_lifetime(rest) {
        return (Some(Kind::Other), length);
    }
    if first.is_ascii_digit() {
        return (Some(Kind::Other), word_length(rest));
    }
    let raw = rest.strip_prefix("r#").filter(|word| word_length(word) > 0);
    let skipped = if raw.is_some() { 2 } else { 0 };
    match word_length(&rest[skipped..]) {
        0 => (Some(Kind::Mark(first)), first.len_utf8()),
        length => (Some(Kind::Word(&rest[skipped..skipped + length])), skipped + length),
    }
}

fn word_length(rest: &str) -> usize {
    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut at, mut depth) = (2, 1);
    while at < bytes.len() && depth > 0 {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

/// `"…"`, `r"…"`, `r#"…"#` and the same after `b` or `c`: the inside and the whole length.
fn string(rest: &str) -> Option<(&str, usize)> {
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    if !matches!(&rest[..prefix], "" | "b" | "c" | "r" | "br" | "cr") {
        return None;
    }
    let raw = rest[..prefix].ends_with('r');
    let hashes = if raw { rest[prefix..].bytes().take_while(|&b| b == b'#').count() } else { 0 };
    let start = prefix + hashes + 1;
    if rest.as_bytes().get(start - 1) != Some(&b'"') {
        return None;
    }
    let inside = &rest[start..];
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        let length = inside.find(&end).unwrap_or(inside.len());
        return Some((&inside[..length], (start + length + end.len()).min(rest.len())));
    }
    let mut escaped = false;
    let length = inside
        .bytes()
        .position(|b| {
            let ends = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            ends
        })
        .unwrap_or(inside.len());
    Some((&inside[..length], (start + length + 1).min(rest.len())))
}

/// `'a'`, `'\''`, `b'"'`, and the lifetime `'a`, which has no closing quote.
fn quoted_character_or_lifetime(rest: &str) -> Option<usize> {
    let prefix = usize::from(rest.starts_with("b'"));
    let inside = rest[prefix..].strip_prefix('\'')?;
    let start = prefix + 1;
    if let Some(escape) = inside.strip_prefix('\\') {
        // The escaped character itself may be a quote, so look for the closing one behind it.
        let skipped = escape.chars().next().map_or(0, char::len_utf8);
        let closing = escape[skipped..].find('\'').map_or(escape.len(), |at| skipped + at + 1);
        return Some(start + 1 + closing);
    }
    let only = inside.chars().next().map_or(0, char::len_utf8);
    if inside[only..].starts_with('\'') {
        return Some(start + only + 1);
    }
    Some(start + word_length(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        tokens(source).iter().filter_map(Token::word).collect()
    }

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().filter_map(Token::text).collect()
    }

    #[test]
    fn comments_of_every_form_hold_no_words() {
        assert_eq!(words("a // unsafe\nb /* unsafe /* unsafe */ unsafe */ c /// unsafe"), ["a", "b", "c"]);
        assert_eq!(words("a /* unfinished"), ["a"]);
        assert_eq!(words("a / b"), ["a", "b"]);
    }

    #[test]
    fn strings_of_every_form_hold_no_words() {
        assert_eq!(
            words(r##"a "x \" unsafe" b r"\" c br#"" unsafe"# d c"unsafe" e"##),
            ["a", "b", "c", "d", "e"]
        );
        assert_eq!(texts(r##"f("one", r#"two"three"#, b"four\\")"##), ["one", "two\"three", r"four\\"]);
        assert_eq!(words("a \"unfinished unsafe"), ["a"]);
        assert_eq!(words("a r#\"unfinished unsafe\""), ["a"]);
    }

    #[test]
    fn a_quote_opens_a_character_or_a_lifetime_but_never_a_string() {
        assert_eq!(words(r#"'"' a '\'' b '\\' c b'"' d '\u{22}' e"#), ["a", "b", "c", "d", "e"]);
        assert_eq!(words("fn f<'a>(x: &'a str) {}"), ["fn", "f", "x", "str"]);
        assert_eq!(words("'é' a '/' b"), ["a", "b"]);
    }

    #[test]
    fn raw_words_lose_their_mark_and_prefix_letters_may_begin_a_word() {
        assert_eq!(words("r#match bread crab r br c rb"), ["match", "bread", "crab", "r", "br", "c", "rb"]);
    }

    #[test]
    fn lines_count_through_literals_and_comments() {
        let lines: Vec<usize> = tokens("a\n\"x\ny\" b\n/*\n\n*/ c").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 3, 6]);
    }

    #[test]
    fn every_cut_of_a_source_ends() {
        let source = r##"let a = b'\'' + r#"x"# /* y */ "\"" 'a 'b' é // z"##;
        for (cut, _) in source.char_indices() {
            tokens(&source[..cut]);
            tokens(&source[cut..]);
        }
    }
}
