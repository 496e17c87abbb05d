//! The one date form that HTTP writes: IMF-fixdate (RFC 9110 §5.6.7).

const DAY_NAMES: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTH_NAMES: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

const SECONDS_PER_DAY: i64 = 86_400;
/// 0000-01-01 00:00:00, the first second that four digits of year can name.
const SECONDS_MIN: i64 = -62_167_219_200;
/// 9999-12-31 23:59:59, the last.
const SECONDS_MAX: i64 = 253_402_300_799;
/// The Gregorian calendar repeats after 400 years.
const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01, where the eras below begin, to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

/// The date of a second since 1970, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
/// Years outside 0..=9999 are answered with the nearest second inside.
pub fn http_date(unix_seconds: i64) -> [u8; 29] {
    let seconds = unix_seconds.clamp(SECONDS_MIN, SECONDS_MAX);
    let days = seconds.div_euclid(SECONDS_PER_DAY);
    let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let (year, month, day) = civil_date(days);

    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    date[0..3].copy_from_slice(DAY_NAMES[days.rem_euclid(7) as usize]);
    write_two_digits(&mut date[5..7], day);
    date[8..11].copy_from_slice(MONTH_NAMES[month as usize - 1]);
    write_two_digits(&mut date[12..14], year / 100);
    write_two_digits(&mut date[14..16], year % 100);
    write_two_digits(&mut date[17..19], second_of_day / 3600);
    write_two_digits(&mut date[20..22], second_of_day / 60 % 60);
    write_two_digits(&mut date[23..25], second_of_day % 60);
    date
}

fn write_two_digits(place: &mut [u8], number: i64) {
    place[0] = b'0' + (number / 10 % 10) as u8;
    place[1] = b'0' + (number % 10) as u8;
}

/// Year, month 1..=12 and day 1..=31 of a day counted from 1970-01-01.
///
/// Years are taken to begin in March, so that the leap day is the last of its year and the lengths of the
/// months before it follow one line: 31 30 31 30 31 twice over is 153 days per five months.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    // Without the leap days before it, a day of the era divides by 365: one every 4 years (1,460 days), but
    // not every 100 (36,524), but every 400 (the era's last day).
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (DAYS_PER_ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let (month, years_on) =
        if months_since_march < 10 { (months_since_march + 3, 0) } else { (months_since_march - 9, 1) };
    (era * 400 + year_of_era + years_on, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unix_seconds: i64) -> String {
        String::from_utf8(http_date(unix_seconds).to_vec()).unwrap()
    }

    #[test]
    fn known_dates() {
        for (seconds, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_740_787_199, "Fri, 28 Feb 2025 23:59:59 GMT"),
            (1_740_787_200, "Sat, 01 Mar 2025 00:00:00 GMT"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (SECONDS_MIN, "Sat, 01 Jan 0000 00:00:00 GMT"),
            (SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (i64::MIN, "Sat, 01 Jan 0000 00:00:00 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(text(seconds), date, "{seconds}");
        }
    }

    /// Every day from 1600 to 2400 has the date that counting day by day gives.
    #[test]
    fn each_day_follows_the_one_before() {
        let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (mut year, mut month, mut day) = (1600, 1, 1);
        let mut days = -135_140;
        while year < 2400 {
            assert_eq!(civil_date(days), (year, month, day), "day {days}");
            let month_days = match month {
                2 if is_leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            days += 1;
            day += 1;
            if day > month_days {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
