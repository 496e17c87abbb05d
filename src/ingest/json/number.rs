//! Numbers of JSON, exactly: as the nearest double, and as whole milliseconds.
//!
//! ```text
//!   digits → a whole mantissa of up to 19 digits and a power of ten
//!   mantissa below 2⁵³ and power within ±22: both are doubles without error, so one multiplication or
//!   division rounds once and is right (Clinger); else the standard library parses the text
//! ```

use super::SyntaxError;

/// A number, as it stands in the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'b> {
    text: &'b str,
    is_negative: bool,
    /// The digits without point and exponent; of more than [`EXACT_DIGITS_MAX`] it means nothing.
    mantissa: u64,
    /// Digits in the mantissa, leading zeros included.
    digits: usize,
    /// The power of ten by which the mantissa is to be multiplied, held to ±10⁶ and the length of the text.
    exponent: i64,
}

/// Every number of so many digits fits 64 bits.
const EXACT_DIGITS_MAX: usize = 19;
/// Every whole number up to here is a double.
const EXACT_MANTISSA_MAX: u64 = 1 << f64::MANTISSA_DIGITS;
/// Far beyond every double and every timestamp, and far from overflow.
const EXPONENT_MAX: i64 = 1_000_000;

const _: () = assert!(10u64.checked_pow(EXACT_DIGITS_MAX as u32).is_some());

/// The powers of ten that are doubles without error.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Why a number is no whole number of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WholeError {
    Fraction,
    TooLarge,
}

/// The number that begins at `start`, and its length in bytes.
#[inline]
pub(super) fn lex(body: &str, start: usize) -> Result<(Number<'_>, usize), SyntaxError> {
    let bytes = body.as_bytes();
    let fail = |offset, expected| Err(SyntaxError { offset, expected });
    let mut at = start;
    let mut mantissa = 0u64;
    // Passes digits; how many there were.
    let run = |at: &mut usize, mantissa: &mut u64| {
        let from = *at;
        while let Some(digit @ 0..=9) = bytes.get(*at).map(|byte| byte.wrapping_sub(b'0')) {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            *at += 1;
        }
        *at - from
    };
    let is_negative = bytes.get(at) == Some(&b'-');
    at += usize::from(is_negative);
    let first = at;
    let mut digits = run(&mut at, &mut mantissa);
    if digits == 0 {
        return if super::is_no_finite_number(&bytes[at..]) {
            fail(start, super::FINITE)
        } else {
            fail(at, "a digit")
        };
    }
    if digits > 1 && bytes[first] == b'0' {
        return fail(first, "a number without leading zeros");
    }
    let mut exponent = 0i64;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let fraction = run(&mut at, &mut mantissa);
        if fraction == 0 {
            return fail(at, "a digit after '.'");
        }
        digits += fraction;
        exponent = -(fraction as i64);
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        let is_small = bytes.get(at) == Some(&b'-');
        at += usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
        let from = at;
        let mut power = 0i64;
        while let Some(digit @ 0..=9) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')) {
            power = (power * 10 + i64::from(digit)).min(EXPONENT_MAX);
            at += 1;
        }
        if at == from {
            return fail(at, "a digit of the exponent");
        }
        exponent += if is_small { -power } else { power };
    }
    let text = body.get(start..at).expect("a number is ASCII");
    Ok((Number { text, is_negative, mantissa, digits, exponent }, at - start))
}

impl Number<'_> {
    /// The nearest double; infinite when it lies beyond the largest.
    #[inline]
    pub(crate) fn to_f64(self) -> f64 {
        let is_exact = self.digits <= EXACT_DIGITS_MAX && self.mantissa <= EXACT_MANTISSA_MAX;
        let power = POWERS.get(self.exponent.unsigned_abs() as usize);
        let (true, Some(power)) = (is_exact, power) else {
            return self.text.parse().expect("every number of JSON is one of Rust");
        };
        let mantissa = self.mantissa as f64;
        let size = if self.exponent < 0 { mantissa / power } else { mantissa * power };
        if self.is_negative { -size } else { size }
    }

    /// Whether it stands there with a minus.
    pub(crate) fn is_negative(self) -> bool {
        self.is_negative
    }

    /// The number itself, if it is whole and fits: `5`, `5.0`, `5e3`, `5000e-3`.
    #[inline]
    pub(crate) fn to_whole(self) -> Result<i64, WholeError> {
        if self.exponent == 0 && self.digits < EXACT_DIGITS_MAX {
            let size = self.mantissa as i64;
            return Ok(if self.is_negative { -size } else { size });
        }
        self.to_whole_by_digits()
    }

    /// As [`Self::to_whole`], for any number of digits: zeros at the end go into the exponent.
    #[cold]
    fn to_whole_by_digits(self) -> Result<i64, WholeError> {
        let mantissa = self.text.split(['e', 'E']).next().unwrap_or_default();
        let mut size = Some(0i64);
        let mut zeros = 0u32;
        let mut exponent = self.exponent;
        for digit in mantissa.bytes().filter(u8::is_ascii_digit).map(|byte| i64::from(byte - b'0')) {
            if digit == 0 {
                zeros = zeros.saturating_add(1);
                continue;
            }
            size = (|| size?.checked_mul(10i64.checked_pow(zeros)?)?.checked_mul(10)?.checked_add(digit))();
            zeros = 0;
        }
        if size == Some(0) {
            return Ok(0);
        }
        exponent += i64::from(zeros);
        // The last digit that is not zero stands behind the point.
        if exponent < 0 {
            return Err(WholeError::Fraction);
        }
        let size = (|| size?.checked_mul(10i64.checked_pow(u32::try_from(exponent).ok()?)?))();
        let size = size.ok_or(WholeError::TooLarge)?;
        Ok(if self.is_negative { -size } else { size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number<'_> {
        let (number, len) = lex(text, 0).unwrap();
        assert_eq!(len, text.len(), "{text}");
        number
    }

    #[test]
    fn numbers_are_the_nearest_doubles() {
        for text in [
            "0",
            "-0",
            "-0.0e-5",
            "85",
            "75.5",
            "0.1",
            "1e22",
            "1e23",
            "9007199254740993",
            "9007199254740992.5",
            "18446744073709551616",
            "9999999999999999999",
            "0.000000000000000000000000000001",
            "123456789012345678901234567890e-10",
            "1.7976931348623157e308",
            "1e999",
            "-1e99999999999999999999",
            "1e-99999999999999999999",
            "5e-324",
            "2.2250738585072011e-308",
        ] {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(number(text).to_f64().to_bits(), expected.to_bits(), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_taken_however_they_are_written() {
        for (text, whole) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("0e99999999999", Ok(0)),
            ("0.000e-5", Ok(0)),
            ("1696789234567", Ok(1_696_789_234_567)),
            ("1.696789234567e12", Ok(1_696_789_234_567)),
            ("1696789234567.000", Ok(1_696_789_234_567)),
            ("1696789234567000e-3", Ok(1_696_789_234_567)),
            ("5.00000000000000000000000000", Ok(5)),
            ("500000000000000000000000000e-26", Ok(5)),
            ("-1e3", Ok(-1_000)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("9223372036854775808", Err(WholeError::TooLarge)),
            ("1e19", Err(WholeError::TooLarge)),
            ("1e99999999999", Err(WholeError::TooLarge)),
            ("5.00000000000000000000000001", Err(WholeError::Fraction)),
            ("0.5", Err(WholeError::Fraction)),
            ("15e-1", Err(WholeError::Fraction)),
            ("1e-99999999999", Err(WholeError::Fraction)),
        ] {
            assert_eq!(number(text).to_whole(), whole, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_names_the_digit_that_is_missing() {
        for (text, offset, expected) in [
            ("-", 1, "a digit"),
            ("-x", 1, "a digit"),
            ("01", 0, "a number without leading zeros"),
            ("-007", 1, "a number without leading zeros"),
            ("1.", 2, "a digit after '.'"),
            ("1.e5", 2, "a digit after '.'"),
            ("1e", 2, "a digit of the exponent"),
            ("1e+", 3, "a digit of the exponent"),
            ("-Infinity", 0, super::super::FINITE),
        ] {
            assert_eq!(lex(text, 0).unwrap_err(), SyntaxError { offset, expected }, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn decimals_are_bit_for_bit_those_of_the_standard_library(
            text in "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?",
        ) {
            prop_assert_eq!(number(&text).to_f64().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }

        #[test]
        fn every_double_comes_back_from_its_own_text(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value}"), format!("{value:e}")] {
                prop_assert_eq!(number(&text).to_f64().to_bits(), bits);
            }
        }

        /// Whole numbers shifted behind a point and back by the exponent stay themselves.
        #[test]
        fn shifted_whole_numbers_stay_themselves(whole in any::<i64>(), shift in 0usize..25) {
            prop_assume!(whole != i64::MIN);
            let sign = if whole < 0 { "-" } else { "" };
            let digits = format!("{:0>width$}", whole.unsigned_abs(), width = shift + 2);
            let (head, tail) = digits.split_at(digits.len() - shift - 1);
            let head = head.trim_start_matches('0');
            let head = if head.is_empty() { "0" } else { head };
            let text = format!("{sign}{head}.{tail}e{}", shift + 1);
            prop_assert_eq!(number(&text).to_whole(), Ok(whole));
        }
    }
}
