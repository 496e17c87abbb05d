//! RFC 3339 times to milliseconds.
//!
//! `2025-09-17T13:45:23.123Z`: date, `T` or a space, time, a fraction if there is one, and `Z` or the offset
//! from UTC. Hand-written because it is forty lines and the hot path wants no time zone library; the tests
//! hold it against one.

/// Milliseconds since 1970 (negative before it), what is finer cut off towards the past;
/// `None` when the text is no RFC 3339 time. The leap second `:60` is taken as the second before it.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (head, mut rest) = bytes.split_first_chunk::<19>()?;
    let punctuation = (head[4], head[7], head[13], head[16]) == (b'-', b'-', b':', b':');
    if !punctuation || !matches!(head[10], b'T' | b't' | b' ') {
        return None;
    }
    let pair = |at: usize| digits(&head[at..at + 2]);
    let (year, month, day) = (digits(&head[..4])?, pair(5)?, pair(8)?);
    let (hour, minute, second) = (pair(11)?, pair(14)?, pair(17)?);
    let exists = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !exists || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if len == 0 {
            return None;
        }
        let (fraction, after) = fraction.split_at(len);
        for (digit, weight) in fraction.iter().zip([100, 10, 1]) {
            millis += i64::from(digit - b'0') * weight;
        }
        rest = after;
    }
    let offset_minutes = match *rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[h1, h2])?, digits(&[m1, m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let minutes = days_since_1970(year, month, day) * 1_440 + hour * 60 + minute - offset_minutes;
    Some((minutes * 60 + second.min(59)) * 1_000 + millis)
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts in years that begin with March, so that a leap day is the last day of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    /// From the first of March of year 0 to the first of January 1970.
    const DAYS_TO_1970: i64 = 719_468;
    let year = year - i64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months of 31, 30, 31, 30, 31 days, again and again: 153 days in five.
    let days_before_month = (153 * month_from_march + 2) / 5;
    365 * year + leap_days + days_before_month + day - 1 - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_to_the_millisecond() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2025-09-17T13:45:23.123Z", 1_758_116_723_123),
            ("2025-09-17t13:45:23.123999z", 1_758_116_723_123),
            ("2025-09-17 15:45:23.1+02:00", 1_758_116_723_100),
            ("2025-09-17T08:15:23-05:30", 1_758_116_723_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("1969-12-31T23:59:59.9981Z", -2),
            ("2000-02-29T00:00:00.05Z", 951_782_400_050),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("2025-09-17T13:45:23.1234567890123456789Z", 1_758_116_723_123),
        ] {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2025-09-17",
            "2025-09-17T13:45:23",
            "2025-09-17T13:45:23.Z",
            "2025-09-17T13:45:23,5Z",
            "2025-09-17T13:45:23+0200",
            "2025-09-17T13:45:23+02",
            "2025-09-17T13:45:23+24:00",
            "2025-09-17T13:45:23+00:60",
            "2025-09-17T13:45:23ZZ",
            "2025-09-17T13:45:23 Z",
            "2025-09-17T24:00:00Z",
            "2025-09-17T13:60:00Z",
            "2025-09-17T13:45:61Z",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-04-31T00:00:00Z",
            "2025-04-00T00:00:00Z",
            "2025/09/17T13:45:23Z",
            "2025-09-17_13:45:23Z",
            "+025-09-17T13:45:23Z",
            "1696789234567",
            "2025-09-17T13:45:2é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        /// Every second from year 0 to 9999, with any offset, is what the time zone library says it is.
        #[test]
        fn agrees_with_jiff(seconds in -62_167_132_800i64..253_402_214_400, millis in 0i64..1_000, minutes in -1_439i32..=1_439) {
            let at = seconds * 1_000 + millis;
            let moment = jiff::Timestamp::from_millisecond(at).unwrap();
            prop_assert_eq!(parse(&moment.to_string()), Some(at));
            let sign = if minutes < 0 { '-' } else { '+' };
            let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
            let text = format!("{}{sign}{hours:02}:{rest:02}", moment.to_string().trim_end_matches('Z'));
            prop_assert_eq!(parse(&text), Some(at - i64::from(minutes) * 60_000));
        }

        #[test]
        fn any_text_is_read_as_jiff_reads_it_or_refused(text in "[0-9TZ:. +-]{0,30}|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,9})?Z") {
            if let Some(millis) = parse(&text) {
                let moment: jiff::Timestamp = text.parse().unwrap();
                // Its own milliseconds are cut towards 1970.
                prop_assert_eq!(moment.as_nanosecond().div_euclid(1_000_000), i128::from(millis));
            }
        }
    }
}
