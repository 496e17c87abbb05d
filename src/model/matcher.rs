//! Conditions on labels, as in `{host="web1",zone!="b"}`.
//!
//! Equality and inequality only; regular expressions come with the query engine's own parser.

use crate::LabelSetRef;
use std::fmt;

/// One condition on one label; an absent label has the value `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// The label; `__name__` is the metric name.
    pub label: String,
    /// The value to compare with.
    pub value: String,
    /// Whether equal values match, or different ones.
    pub equal: bool,
}

impl Matcher {
    /// Whether a label set meets the condition.
    pub fn matches(&self, labels: LabelSetRef<'_>) -> bool {
        (labels.get(&self.label) == self.value) == self.equal
    }
}

/// Where and why a list of matchers could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatcherError {
    /// Byte offset in the text.
    pub offset: usize,
    /// What should have stood there.
    pub expected: &'static str,
}

impl fmt::Display for MatcherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at offset {}", self.expected, self.offset)
    }
}

impl std::error::Error for MatcherError {}

/// Reads `{name="value",other!="value"}`; label names may be quoted, values take `\\`, `\"` and `\n`.
pub fn parse_matchers(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    let mut reader = Reader { text, offset: 0 };
    let mut matchers = Vec::new();
    reader.expect("{", "'{'")?;
    while !reader.take("}") {
        let label = if reader.at("\"") { reader.quoted()? } else { reader.bare_name()? };
        let equal = if reader.take("!=") {
            false
        } else {
            reader.expect("=", "'=' or '!='")?;
            if reader.at("~") {
                return reader.fail("a quoted value: regular expressions are not taken here");
            }
            true
        };
        if !reader.at("\"") {
            return reader.fail("a value in double quotes");
        }
        let value = reader.quoted()?;
        matchers.push(Matcher { label, value, equal });
        if !reader.take(",") && !reader.at("}") {
            return reader.fail("',' or '}'");
        }
    }
    reader.skip_space();
    if reader.offset != text.len() {
        return reader.fail("the end");
    }
    Ok(matchers)
}

struct Reader<'a> {
    text: &'a str,
    offset: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, expected: &'static str) -> Result<T, MatcherError> {
        Err(MatcherError { offset: self.offset, expected })
    }

    fn rest(&self) -> &str {
        &self.text[self.offset..]
    }

    fn skip_space(&mut self) {
        self.offset = self.text.len() - self.rest().trim_start().len();
    }

    fn at(&mut self, token: &str) -> bool {
        self.skip_space();
        self.rest().starts_with(token)
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.at(token);
        self.offset += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), MatcherError> {
        if self.take(token) { Ok(()) } else { self.fail(expected) }
    }

    fn bare_name(&mut self) -> Result<String, MatcherError> {
        let rest = self.rest();
        let len = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.' || c == ':'))
            .unwrap_or(rest.len());
        if len == 0 {
            return self.fail("a label name");
        }
        let name = rest[..len].to_owned();
        self.offset += len;
        Ok(name)
    }

    fn quoted(&mut self) -> Result<String, MatcherError> {
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.offset += at + 1;
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    _ => {
                        self.offset += at;
                        return self.fail(r#"\\, \" or \n"#);
                    }
                },
                c => value.push(c),
            }
        }
        self.offset = self.text.len();
        self.fail("a closing quote")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LabelSet;

    #[test]
    fn matchers_read_and_match() {
        let set = LabelSet::new("cpu", &[("host", "we\"b"), ("the zone", "ü")]).unwrap();
        for (text, expected) in [
            ("{}", true),
            (r#"{host="we\"b"}"#, true),
            (r#" { "the zone" = "ü" , host != "x" , } "#, true),
            (r#"{absent=""}"#, true),
            (r#"{host="other"}"#, false),
            (r#"{host!="we\"b"}"#, false),
            (r#"{__name__="cpu"}"#, true),
        ] {
            let matchers = parse_matchers(text).unwrap();
            assert_eq!(matchers.iter().all(|m| m.matches(set.as_ref())), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_list_names_the_offset_and_what_was_expected() {
        for (text, offset, expected) in [
            ("", 0, "'{'"),
            ("{host}", 5, "'=' or '!='"),
            ("{host=web}", 6, "a value in double quotes"),
            (r#"{host="web"#, 10, "a closing quote"),
            (r#"{host="a" b="c"}"#, 10, "',' or '}'"),
            (r#"{} x"#, 3, "the end"),
            (r#"{host=~"a"}"#, 6, "a quoted value: regular expressions are not taken here"),
            (r#"{="a"}"#, 1, "a label name"),
        ] {
            assert_eq!(parse_matchers(text), Err(MatcherError { offset, expected }), "{text}");
        }
    }
}
