//! Conditions on labels, as in `{host=~"web[0-9]+",zone!="b"}`.
//!
//! Read next: `matcher/pattern.rs` for regular expressions, `matcher/shape.rs` for what they say without being run.

mod pattern;
mod shape;

pub use pattern::Pattern;

use crate::LabelSetRef;
use pattern::{PATTERNS_BYTES_MAX, PatternError};
use std::borrow::Cow;
use std::fmt;

/// One condition on one label; an absent label has the value `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// The label; `__name__` is the metric name.
    pub label: String,
    /// What its value must be.
    pub condition: Condition,
}

/// What a value must be, or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`
    Matches(Pattern),
    /// `!~`
    NotMatches(Pattern),
}

impl Matcher {
    /// Whether a label set meets the condition.
    pub fn matches(&self, labels: LabelSetRef<'_>) -> bool {
        self.meets(labels.get(&self.label))
    }

    /// Whether a value of its label meets the condition; an absent label has the value `""`.
    pub fn meets(&self, value: &str) -> bool {
        match &self.condition {
            Condition::Equal(wanted) => value == wanted,
            Condition::NotEqual(unwanted) => value != unwanted,
            Condition::Matches(pattern) => pattern.matches(value),
            Condition::NotMatches(pattern) => !pattern.matches(value),
        }
    }

    /// The one value that the label must have, where the condition names one: only series that have the label with
    /// it can match.
    pub fn required_value(&self) -> Option<&str> {
        match &self.condition {
            Condition::Equal(value) if !value.is_empty() => Some(value),
            _ => None,
        }
    }
}

/// Where and why a list of matchers could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatcherError {
    /// Byte offset in the text.
    pub offset: usize,
    /// What should have stood there.
    pub expected: Cow<'static, str>,
}

impl fmt::Display for MatcherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at offset {}", self.expected, self.offset)
    }
}

impl std::error::Error for MatcherError {}

/// Reads `{name="value",other!="value",third=~"a|b",fourth!~".*"}`; label names may be quoted, values take `\\`,
/// `\"` and `\n`. Compiles regular expressions, which may take milliseconds.
pub fn parse_matchers(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    let mut reader = Reader { text, offset: 0 };
    let mut matchers = Vec::new();
    let mut pattern_bytes = 0;
    reader.expect("{", "'{'")?;
    while !reader.take("}") {
        let label = if reader.at("\"") { reader.quoted()? } else { reader.bare_name()? };
        let sign = ["=~", "!~", "!=", "="].into_iter().find(|sign| reader.take(sign));
        let Some(sign) = sign else { return reader.fail("'=', '!=', '=~' or '!~'") };
        if !reader.at("\"") {
            return reader.fail("a value in double quotes");
        }
        let offset = reader.offset;
        let value = reader.quoted()?;
        let condition = match sign {
            "=" => Condition::Equal(value),
            "!=" => Condition::NotEqual(value),
            _ => {
                pattern_bytes += value.len();
                let pattern = if pattern_bytes > PATTERNS_BYTES_MAX {
                    Err(PatternError(format!("all together are longer than {PATTERNS_BYTES_MAX} bytes")))
                } else {
                    Pattern::new(&value)
                };
                let pattern = pattern.map_err(|PatternError(reason)| MatcherError {
                    offset,
                    expected: format!("a regular expression ({reason})").into(),
                })?;
                if sign == "=~" { Condition::Matches(pattern) } else { Condition::NotMatches(pattern) }
            }
        };
        matchers.push(Matcher { label, condition });
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
        Err(MatcherError { offset: self.offset, expected: expected.into() })
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
            (r#"{host=~"we.b"}"#, true),
            (r#"{host=~"we"}"#, false),
            (r#"{host!~"we"}"#, true),
            (r#"{host !~ ".*"}"#, false),
            (r#"{host=~"x|we\"b","the zone"=~"\\pL"}"#, true),
            (r#"{absent=~".*"}"#, true),
            (r#"{absent=~".+"}"#, false),
            (r#"{absent!~".+"}"#, true),
        ] {
            let matchers = parse_matchers(text).unwrap();
            assert_eq!(matchers.iter().all(|m| m.matches(set.as_ref())), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_list_names_the_offset_and_what_was_expected() {
        for (text, offset, expected) in [
            ("", 0, "'{'"),
            ("{host}", 5, "'=', '!=', '=~' or '!~'"),
            ("{host=web}", 6, "a value in double quotes"),
            (r#"{host="web"#, 10, "a closing quote"),
            (r#"{host="a" b="c"}"#, 10, "',' or '}'"),
            (r#"{} x"#, 3, "the end"),
            ("{host=~a}", 7, "a value in double quotes"),
            (r#"{host=~"a("}"#, 7, "a regular expression (unclosed group)"),
            (r#"{a!~"a", host!~"*"}"#, 15, "a regular expression (repetition operator missing expression)"),
            (r#"{="a"}"#, 1, "a label name"),
        ] {
            assert_eq!(
                parse_matchers(text),
                Err(MatcherError { offset, expected: expected.into() }),
                "{text}"
            );
        }
    }

    #[test]
    fn regular_expressions_are_bounded_together() {
        let list = |each: usize| {
            let half = "a".repeat(each);
            parse_matchers(&format!(r#"{{a=~"{half}",b!~"{half}"}}"#))
        };
        assert!(list(PATTERNS_BYTES_MAX / 2).is_ok());
        let refused = list(PATTERNS_BYTES_MAX / 2 + 1).unwrap_err();
        assert_eq!(refused.expected, "a regular expression (all together are longer than 4096 bytes)");
    }
}
