//! A clock: the times of one chunk, strictly rising.
//!
//! ```text
//!   0 │ milliseconds                            all times are whole milliseconds: fine parts cost nothing
//!   1 │ milliseconds │ fine parts               both as integers
//! ```

use super::fields::Fields;
use super::integers::Header;
use super::{COLUMN_SAMPLES_MAX, ColumnError, Scratch, integers};
use model::{MILLIS_MAX, TICKS_PER_MILLI, Timestamp};

const FINE_BITS: u32 = TICKS_PER_MILLI.trailing_zeros();
const _: () = assert!(1 << FINE_BITS == TICKS_PER_MILLI);

const WHOLE: u8 = 0;
const FINE: u8 = 1;

/// Milliseconds that a timestamp may have lie from its negative up to one below it.
const MILLIS_HALF: i64 = MILLIS_MAX + 2;
const MILLIS: std::ops::Range<i64> = -MILLIS_HALF..MILLIS_HALF;
const _: () = assert!(-MILLIS_HALF << FINE_BITS == i64::MIN && (MILLIS_HALF as u64).is_power_of_two());

/// Appends the column of these times, 1 to [`COLUMN_SAMPLES_MAX`] of them, strictly rising.
///
/// # Panics
/// If there is none, or there are too many.
pub fn encode_clock(times: &[Timestamp], scratch: &mut Scratch, out: &mut Vec<u8>) {
    assert!((1..=COLUMN_SAMPLES_MAX).contains(&times.len()));
    let mut fine = 0;
    for (place, time) in scratch.numbers.iter_mut().zip(times) {
        *place = time.millis();
        fine |= time.fine();
    }
    let mut put = |numbers: &[i64], out: &mut Vec<u8>| {
        let plan = integers::plan(numbers, &mut scratch.plan);
        integers::encode(numbers, &plan, &mut scratch.plan, out);
    };
    out.push(if fine == 0 { WHOLE } else { FINE });
    put(&scratch.numbers[..times.len()], out);
    if fine != 0 {
        for (place, time) in scratch.others.iter_mut().zip(times) {
            *place = time.fine();
        }
        put(&scratch.others[..times.len()], out);
    }
}

/// The `count` times of a column, strictly rising.
pub fn decode_clock<'a>(
    bytes: &[u8],
    count: usize,
    scratch: &'a mut Scratch,
) -> Result<&'a [i64], ColumnError> {
    if !(1..=COLUMN_SAMPLES_MAX).contains(&count) {
        return Err(ColumnError::Count);
    }
    let mut fields = Fields(bytes);
    let form = fields.byte()?;
    let header = Header::take(&mut fields, count)?;
    if let (WHOLE, Some((first, distance))) = (form, header.steady()) {
        fields.end()?;
        return steady(first, distance, &mut scratch.numbers[..count]);
    }
    if form == WHOLE && header.rises() {
        let (first, last) =
            integers::decode_rising(header, &mut fields, count, FINE_BITS, &mut scratch.numbers)?;
        if !MILLIS.contains(&first) || !MILLIS.contains(&last) {
            return Err(ColumnError::Time);
        }
        fields.end()?;
        return Ok(&scratch.numbers[..count]);
    }
    integers::decode_behind(header, &mut fields, count, &mut scratch.numbers)?;
    let times = &mut scratch.numbers[..count];
    // Of numbers that are all in range no difference overflows. Both checks are sums and masks, several at a time:
    // comparisons of 64 bits are not.
    let outside = times.iter().fold(0, |outside, millis| outside | millis.wrapping_add(MILLIS_HALF) as u64);
    if outside >= 2 * MILLIS_HALF as u64 {
        return Err(ColumnError::Time);
    }
    let is_rising = match form {
        WHOLE => {
            let falls = times.iter().zip(&times[1..]).fold(-1, |falls, (a, b)| falls & (a - b));
            times.iter_mut().for_each(|time| *time <<= FINE_BITS);
            falls < 0
        }
        FINE => {
            integers::decode(&mut fields, count, &mut scratch.others)?;
            let fine = &scratch.others[..count];
            if fine.iter().fold(0, |outside, fine| outside | *fine as u64) >= TICKS_PER_MILLI as u64 {
                return Err(ColumnError::Form);
            }
            times.iter_mut().zip(fine).for_each(|(time, fine)| *time = *time << FINE_BITS | fine);
            rises(times)
        }
        _ => return Err(ColumnError::Form),
    };
    if !is_rising {
        return Err(ColumnError::Time);
    }
    fields.end()?;
    Ok(&scratch.numbers[..count])
}

/// Whole milliseconds at one distance: whether they are right is known by the first and the last.
fn steady(first: i64, distance: i64, times: &mut [i64]) -> Result<&[i64], ColumnError> {
    let more = times.len() as i64 - 1;
    let last = distance.checked_mul(more).and_then(|all| first.checked_add(all));
    let is_right = MILLIS.contains(&first) && last.is_some_and(|last| MILLIS.contains(&last));
    if !is_right || (more > 0 && distance <= 0) {
        return Err(ColumnError::Time);
    }
    integers::fill_steady(times, first << FINE_BITS, distance << FINE_BITS);
    Ok(times)
}

/// Whether each is less than the next. Where all lie within half of what 64 bits can say no difference overflows.
fn rises(ticks: &[i64]) -> bool {
    let first = ticks[0];
    let spread = ticks.iter().fold(0, |spread, tick| spread | tick.wrapping_sub(first) as u64);
    if spread >= 1 << 62 {
        return ticks.is_sorted_by(|a, b| a < b);
    }
    ticks.iter().zip(&ticks[1..]).fold(-1, |falls, (a, b)| falls & a.wrapping_sub(*b)) < 0
}
