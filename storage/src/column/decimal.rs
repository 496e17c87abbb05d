//! Values that people wrote down or counted: `m / 10^e` with one `e` for the column.
//!
//! ```text
//!   e u8: bits 0-4, bit 5 wide, bit 6 last places follow, bit 7 exceptions follow
//!   m as integers │ last places as integers │ exceptions u16 │ places u16 each │ their bits u64 each
//! ```
//!
//! A value such as 51.846000000000004, the rest of a sum, is not 51.846 but the next double: its bits are those of
//! 51.846 plus 1. That difference in last places is a column of its own, of zeros and small numbers.
//! Whatever is no decimal, NaN, an infinity and -0 among it, is an exception and stands whole.
//!
//! Encoder and decoder do the same two roundings: `m` to a double, exactly, and its division by `10^e`, to the nearest.

use super::fields::Fields;
use super::integers::{self, Plan};
use super::{COLUMN_SAMPLES_MAX, ColumnError, Scratch};

const EXPONENT_MAX: usize = 18;
const EXPONENT_MASK: u8 = (1 << 5) - 1;
const IS_WIDE: u8 = 1 << 5;
const HAS_ULPS: u8 = 1 << 6;
const HAS_EXCEPTIONS: u8 = 1 << 7;
/// Last places that a value may be off.
const ULPS_MAX: i64 = 64;
/// A mantissa that is larger and off besides holds the bits of any double: no decimal, but noise.
const SUM_MAX: u64 = 1 << 44;
/// Values looked at to find the exponent.
const SAMPLED: usize = 32;
/// Bytes of an exception.
const EXCEPTION_BYTES: usize = 2 + 8;
/// Times that a finer exponent is tried for values that were exceptions to the first.
const RETRIES: usize = 2;

/// Exact, as all powers of ten up to 10^22 are.
const POWERS: [f64; EXPONENT_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// Added to a double of at most 2^51, it leaves no bit for fractions: the sum is rounded, and its lower bits are the
/// integer. The instruction that converts one does four fewer at a time, if any.
const ROUNDING: f64 = (3u64 << 51) as f64;
const ROUNDED_MAX: f64 = (1u64 << 51) as f64;

/// A plan for a column of decimals; the numbers it is about are in the scratch until the next plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecimalPlan {
    exponent: usize,
    is_wide: bool,
    mantissas: Plan,
    ulps: Option<Plan>,
    exceptions: usize,
    len: usize,
}

impl DecimalPlan {
    /// Bytes that [`encode`] will write.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// How values went into integers.
#[derive(Clone, Copy, Debug)]
struct Split {
    exponent: usize,
    is_wide: bool,
    has_ulps: bool,
    exceptions: usize,
    /// A value that is an exception.
    exception: Option<f64>,
}

/// How the values are packed as decimals; `None` where too few of them are any.
pub(super) fn plan(values: &[f64], scratch: &mut Scratch) -> Option<DecimalPlan> {
    let mut split = split(values, exponent_of(values)?, scratch);
    for _ in 0..RETRIES {
        let Some(finer) = split.exception.and_then(|value| finer_exponent(value, split.exponent)) else {
            break;
        };
        let again = self::split(values, finer, scratch);
        if again.exceptions >= split.exceptions {
            split = self::split(values, split.exponent, scratch);
            break;
        }
        split = again;
    }
    if split.exceptions > values.len() / 4 {
        return None;
    }
    let mantissas = integers::plan(&scratch.numbers[..values.len()], &mut scratch.plan);
    let ulps = split.has_ulps.then(|| integers::plan(&scratch.others[..values.len()], &mut scratch.plan));
    let exceptions = match split.exceptions {
        0 => 0,
        exceptions => 2 + exceptions * EXCEPTION_BYTES,
    };
    Some(DecimalPlan {
        exponent: split.exponent,
        is_wide: split.is_wide,
        mantissas,
        ulps,
        exceptions: split.exceptions,
        len: 1 + mantissas.len() + ulps.map_or(0, |plan| plan.len()) + exceptions,
    })
}

pub(super) fn encode(values: &[f64], plan: &DecimalPlan, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let flags = flag(plan.is_wide, IS_WIDE)
        | flag(plan.ulps.is_some(), HAS_ULPS)
        | flag(plan.exceptions > 0, HAS_EXCEPTIONS);
    out.push(plan.exponent as u8 | flags);
    integers::encode(&scratch.numbers[..values.len()], &plan.mantissas, &mut scratch.plan, out);
    if let Some(ulps) = &plan.ulps {
        integers::encode(&scratch.others[..values.len()], ulps, &mut scratch.plan, out);
    }
    if plan.exceptions > 0 {
        let is_exception = |value: &f64| to_decimal(*value, plan.exponent).is_none();
        let exceptions = || values.iter().enumerate().filter(|(_, value)| is_exception(value));
        out.extend_from_slice(&(plan.exceptions as u16).to_le_bytes());
        exceptions().for_each(|(place, _)| out.extend_from_slice(&(place as u16).to_le_bytes()));
        exceptions().for_each(|(_, value)| out.extend_from_slice(&value.to_bits().to_le_bytes()));
    }
}

pub(super) fn decode(bytes: &[u8], scratch: &mut Scratch, out: &mut [f64]) -> Result<(), ColumnError> {
    let mut fields = Fields(bytes);
    let head = fields.byte()?;
    let power = *POWERS.get(usize::from(head & EXPONENT_MASK)).ok_or(ColumnError::Form)?;
    let numbers = &mut scratch.numbers;
    match (head & IS_WIDE != 0, power == 1.0) {
        (true, _) => integers::decode_as(&mut fields, numbers, out, |m| m as f64 / power)?,
        (false, true) => integers::decode_as(&mut fields, numbers, out, to_double)?,
        (false, false) => integers::decode_as(&mut fields, numbers, out, |m| to_double(m) / power)?,
    }
    if head & HAS_ULPS != 0 {
        integers::decode(&mut fields, out.len(), &mut scratch.others)?;
        for (value, ulps) in out.iter_mut().zip(scratch.others.iter()) {
            *value = f64::from_bits(value.to_bits().wrapping_add_signed(*ulps));
        }
    }
    if head & HAS_EXCEPTIONS != 0 {
        let exceptions = usize::from(fields.u16()?);
        let places = fields.slice(exceptions * 2)?.as_chunks::<2>().0;
        for place in places {
            let place = usize::from(u16::from_le_bytes(*place));
            *out.get_mut(place).ok_or(ColumnError::Form)? = f64::from_bits(fields.u64()?);
        }
    }
    fields.end()
}

/// A mantissa of at most 2^51 as a double, without the conversion; of a larger one, which only a forger writes into a
/// column that is not wide, some double.
#[inline(always)]
fn to_double(mantissa: i64) -> f64 {
    f64::from_bits((ROUNDING.to_bits() as i64).wrapping_add(mantissa) as u64) - ROUNDING
}

/// The mantissa, and the last places that it is off; `None` for an exception.
#[inline(always)]
fn to_decimal(value: f64, exponent: usize) -> Option<(i64, i64)> {
    let power = POWERS[exponent];
    let scaled = value * power;
    if scaled.abs() < ROUNDED_MAX {
        let rounded = scaled + ROUNDING;
        let mantissa = (rounded.to_bits() as i64).wrapping_sub(ROUNDING.to_bits() as i64);
        let ulps = (value.to_bits() as i64).wrapping_sub(((rounded - ROUNDING) / power).to_bits() as i64);
        return (-ULPS_MAX..=ULPS_MAX).contains(&ulps).then_some((mantissa, ulps));
    }
    let mantissa = value as i64;
    let is_whole = exponent == 0 && mantissa != i64::MAX && (mantissa as f64).to_bits() == value.to_bits();
    is_whole.then_some((mantissa, 0))
}

/// Fills the scratch with mantissas and last places.
fn split(values: &[f64], exponent: usize, scratch: &mut Scratch) -> Split {
    let mut split = Split { exponent, is_wide: false, has_ulps: false, exceptions: 0, exception: None };
    let (power, base) = (POWERS[exponent], ROUNDING.to_bits() as i64);
    let (mantissas, ulps) = (&mut scratch.numbers[..values.len()], &mut scratch.others[..values.len()]);
    // What nearly all values need, in a loop without a branch.
    let mut others = 0;
    let mut any_ulps = 0;
    for ((value, mantissa), ulps) in values.iter().zip(&mut *mantissas).zip(&mut *ulps) {
        let scaled = value * power;
        let rounded = scaled + ROUNDING;
        *mantissa = (rounded.to_bits() as i64).wrapping_sub(base);
        *ulps = (value.to_bits() as i64).wrapping_sub(((rounded - ROUNDING) / power).to_bits() as i64);
        let fits = (scaled.abs() < ROUNDED_MAX) & (ulps.wrapping_add(ULPS_MAX) as u64 <= 2 * ULPS_MAX as u64);
        others += usize::from(!fits);
        any_ulps |= *ulps;
    }
    if others == 0 {
        split.has_ulps = any_ulps != 0;
        return split;
    }
    let mut last = 0;
    for ((value, mantissa), ulps) in values.iter().zip(mantissas).zip(ulps) {
        let Some((number, off)) = to_decimal(*value, exponent) else {
            // Any mantissa will do; one like its neighbour costs least.
            (*mantissa, *ulps) = (last, 0);
            split.exceptions += 1;
            split.exception = split.exception.filter(|first| first.is_finite()).or(Some(*value));
            continue;
        };
        (*mantissa, *ulps, last) = (number, off, number);
        split.has_ulps |= off != 0;
        split.is_wide |= number.unsigned_abs() >= 1 << 51;
    }
    split
}

/// The least exponent with which nearly all of some values are decimals.
fn exponent_of(values: &[f64]) -> Option<usize> {
    let step = values.len().div_ceil(SAMPLED);
    let sampled = || values.iter().step_by(step).filter(|value| value.is_finite());
    let misses_max = sampled().count() / 10;
    (0..=EXPONENT_MAX).find(|&exponent| {
        let is_decimal = |(mantissa, ulps): (i64, i64)| ulps == 0 || mantissa.unsigned_abs() < SUM_MAX;
        let mut missed = sampled().filter(|&&value| !to_decimal(value, exponent).is_some_and(is_decimal));
        missed.nth(misses_max).is_none()
    })
}

/// The next exponent with which that value is a decimal.
fn finer_exponent(value: f64, exponent: usize) -> Option<usize> {
    let is_value = value.is_finite() && value != 0.0;
    (exponent + 1..=EXPONENT_MAX).find(|&finer| is_value && to_decimal(value, finer).is_some())
}

const _: () = assert!(COLUMN_SAMPLES_MAX <= u16::MAX as usize);
