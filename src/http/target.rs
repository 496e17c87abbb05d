//! Percent-encoding in paths and queries, undone.

use std::borrow::Cow;
use std::fmt;

/// Why percent-encoded text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapeError {
    /// A `%` is not followed by two hexadecimal digits.
    Malformed,
    /// The bytes it stands for are not UTF-8.
    NotUtf8,
}

impl fmt::Display for EscapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EscapeError::Malformed => "% must be followed by two hexadecimal digits; write % itself as %25",
            EscapeError::NotUtf8 => "the escaped bytes are not UTF-8",
        })
    }
}

impl std::error::Error for EscapeError {}

/// A query parameter that cannot be decoded. Both are the client's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterError {
    /// Its name; as it was written, if the name itself is what cannot be decoded.
    pub key: String,
    /// What is wrong with it.
    pub cause: EscapeError,
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter {}: {}", self.key, self.cause)
    }
}

impl std::error::Error for ParameterError {}

/// The name-value pairs of a query string or a form body (`application/x-www-form-urlencoded`), decoded, in
/// order. `+` is a space, a name without `=` has the empty value, empty pairs are left out.
/// Nothing is copied where nothing is escaped.
pub fn parameters(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), ParameterError>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key, Plus::Space).map_err(|cause| ParameterError { key: key.to_owned(), cause })?;
        match decode(value, Plus::Space) {
            Ok(value) => Ok((key, value)),
            Err(cause) => Err(ParameterError { key: key.into_owned(), cause }),
        }
    })
}

/// The text that a path, or one segment of it, stands for; `+` is itself there.
/// A path whose segments may hold an escaped `/` is split first and decoded segment by segment.
pub fn decode_path(path: &str) -> Result<Cow<'_, str>, EscapeError> {
    decode(path, Plus::Literal)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Literal,
    Space,
}

fn decode(text: &str, plus: Plus) -> Result<Cow<'_, str>, EscapeError> {
    let is_special = |b: &u8| *b == b'%' || (*b == b'+' && plus == Plus::Space);
    let Some(first) = text.bytes().position(|b| is_special(&b)) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut plain = first;
    loop {
        decoded.extend_from_slice(&rest[..plain]);
        match &rest[plain..] {
            [] => break,
            [b'%', high, low, after @ ..] => {
                let digit = |b: &u8| char::from(*b).to_digit(16).ok_or(EscapeError::Malformed);
                decoded.push((digit(high)? << 4 | digit(low)?) as u8);
                rest = after;
            }
            [b'%', ..] => return Err(EscapeError::Malformed),
            [_, after @ ..] => {
                decoded.push(b' ');
                rest = after;
            }
        }
        plain = rest.iter().position(is_special).unwrap_or(rest.len());
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| EscapeError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        parameters(query).map(|p| p.unwrap()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
    }

    #[test]
    fn pairs_are_split_and_decoded_in_order() {
        assert_eq!(
            pairs("name=cpu_usage&match=%7Bhost%3D%22web1%22%7D&a+b=c%2Bd&flag&=x&&e==f&name="),
            [
                ("name", "cpu_usage"),
                ("match", "{host=\"web1\"}"),
                ("a b", "c+d"),
                ("flag", ""),
                ("", "x"),
                ("e", "=f"),
                ("name", ""),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn plain_text_is_not_copied() {
        for pair in parameters("start=0&end=10") {
            assert!(matches!(pair, Ok((Cow::Borrowed(_), Cow::Borrowed(_)))));
        }
        assert!(matches!(decode_path("/a+b"), Ok(Cow::Borrowed("/a+b"))));
    }

    #[test]
    fn an_error_names_its_key() {
        for (query, key, cause) in [
            ("a=1&start=%", "start", EscapeError::Malformed),
            ("start=%4", "start", EscapeError::Malformed),
            ("start=%4g", "start", EscapeError::Malformed),
            ("start=%+1", "start", EscapeError::Malformed),
            ("st%61rt=%ff", "start", EscapeError::NotUtf8),
            ("st%zzrt=1", "st%zzrt", EscapeError::Malformed),
            ("%c3=1", "%c3", EscapeError::NotUtf8),
        ] {
            let error = parameters(query).find_map(Result::err);
            assert_eq!(error, Some(ParameterError { key: key.to_owned(), cause }), "{query}");
        }
        // The pairs before and behind it are still read.
        assert_eq!(parameters("a=1&b=%&c=3").filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn paths_are_decoded_by_segment() {
        assert_eq!(decode_path("/rules/cpu%20%C3%A4%2f"), Ok(Cow::Owned("/rules/cpu ä/".to_owned())));
        assert_eq!(decode_path("/%e4"), Err(EscapeError::NotUtf8));
        assert_eq!(decode_path("/%"), Err(EscapeError::Malformed));
    }

    proptest! {
        /// Any text survives being escaped, whether only what must be is escaped or every byte.
        #[test]
        fn escaped_text_decodes_to_itself(key in ".{0,12}", value in ".{0,12}", every: bool) {
            let escape = |text: &str| -> String {
                text.bytes().map(|b| match b {
                    b' ' if !every => "+".to_owned(),
                    b if !every && b.is_ascii_alphanumeric() => char::from(b).to_string(),
                    b => format!("%{b:02x}"),
                }).collect()
            };
            let query = format!("x=1&{}={}&y", escape(&key), escape(&value));
            prop_assert_eq!(&pairs(&query)[1], &(key, value));
        }

        #[test]
        fn no_text_panics(text in "[%+a-f0-9=&é]{0,24}") {
            parameters(&text).for_each(|_| {});
            let _ = decode_path(&text);
        }
    }
}
