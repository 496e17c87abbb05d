//! Numbers and text as JSON.

use std::io::Write;

/// Appends the shortest decimal that reads back to the same bits: `85`, `125.5`, `1e21`, `1.5e-7`.
/// What JSON has no number for is text: `"NaN"`, `"+Inf"`, `"-Inf"`.
pub fn write_number(value: f64, out: &mut Vec<u8>) {
    const WHOLE_MAX: f64 = (1u64 << 53) as f64;
    let magnitude = value.abs();
    if magnitude <= WHOLE_MAX
        && value.trunc().to_bits() == value.to_bits()
        && value.to_bits() != (-0.0f64).to_bits()
    {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"+Inf\"" } else { b"\"-Inf\"" });
    } else {
        // Without an exponent a double can take over 300 digits.
        let written = if magnitude >= 1e21 || (magnitude < 1e-6 && magnitude > 0.0) {
            write!(out, "{value:e}")
        } else {
            write!(out, "{value}")
        };
        written.expect("a vector takes every write");
    }
}

/// Appends the text in quotes; what JSON wants escaped is escaped, other UTF-8 stays as it is.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[written..at]);
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            write!(out, "{byte:04x}").expect("a vector takes every write");
        }
        written = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[written..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(value: f64) -> String {
        let mut out = Vec::new();
        write_number(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn text(text: &str) -> String {
        let mut out = Vec::new();
        write_text(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_shortest_and_exact() {
        for (value, expected) in [
            (85.0, "85"),
            (125.5, "125.5"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1234567.0, "1234567"),
            (0.0, "0"),
            (-0.0, "-0"),
            (-3.0, "-3"),
            (9007199254740992.0, "9007199254740992"),
            (9007199254740994.0, "9007199254740994"),
            (1e20, "100000000000000000000"),
            (1e21, "1e21"),
            (-1.5e300, "-1.5e300"),
            (0.000001, "0.000001"),
            (0.0000015, "0.0000015"),
            (1.5e-7, "1.5e-7"),
            (5e-324, "5e-324"),
            (f64::NAN, r#""NaN""#),
            (-f64::NAN, r#""NaN""#),
            (f64::INFINITY, r#""+Inf""#),
            (f64::NEG_INFINITY, r#""-Inf""#),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn text_is_escaped_where_json_wants_it() {
        assert_eq!(text("a\"b\\c\nd\r\te\u{1}\u{1f}"), r#""a\"b\\c\nd\r\te\u0001\u001f""#);
        assert_eq!(text("läuft 温度\u{7f}/"), "\"läuft 温度\u{7f}/\"");
        assert_eq!(text(""), r#""""#);
    }

    proptest! {
        #[test]
        fn a_printed_number_reads_back_to_the_same_bits(value in proptest::num::f64::NORMAL
            | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
            let printed = number(value);
            prop_assert_eq!(printed.parse::<f64>().unwrap().to_bits(), value.to_bits());
            prop_assert!(serde_json::from_str::<f64>(&printed).is_ok(), "{} is no JSON", printed);
        }

        #[test]
        fn a_whole_number_reads_back_too(value in -(1i64 << 60)..1i64 << 60) {
            let value = value as f64;
            prop_assert_eq!(number(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }

        #[test]
        fn any_text_reads_back(any in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&text(&any)).unwrap(), any);
        }
    }
}
