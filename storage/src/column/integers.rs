//! Integers: what clocks and nearly all value columns are made of.
//!
//! ```text
//!   y[i] = (x[i] - x[0]) / g            g: the greatest common divisor of the distances
//!   r[i] = by frame      y[i]
//!          by delta      y[i+1] - y[i]                            one fewer
//!          by change     (y[i+2] - y[i+1]) - (y[i+1] - y[i])      two fewer; the first distance is kept
//!          by line       y[i] - slope · i / 2^16
//!   r[i] - base is packed with one width; what needs more is patched: its place, and its upper bits
//!
//!   form u8: way in bits 0-1, bit 2 g follows, bit 3 patches follow │ width u8
//!   x[0] zigzag varint │ g varint │ base zigzag varint │ first distance or slope zigzag varint
//!   patches u16 │ bits of the widest u8 │ packed │ places u16 each │ upper bits, packed
//! ```
//!
//! All arithmetic wraps at 64 bits, in both directions, so any integers come back whatever they are. `base` is the
//! least residual, or the least that is no outlier: what lies below it wraps to a large number and is patched.

use super::fields::{Fields, put_varint, varint_len, zigzag};
use super::pack::{pack, packed_len, unpack};
use super::{COLUMN_SAMPLES_MAX, ColumnError, Numbers};

/// Fraction bits of a slope.
const SLOPE_BITS: u32 = 16;
/// A slope whose line through a column stays below 2^63.
const SLOPE_MAX: i64 = i64::MAX / COLUMN_SAMPLES_MAX as i64;
/// Distances that a slope can be made of without overflow.
const LINE_MAX: u64 = 1 << (62 - SLOPE_BITS);
const HAS_DIVISOR: u8 = 1 << 2;
const HAS_PATCHES: u8 = 1 << 3;
const FORM_MAX: u8 = (1 << 4) - 1;
/// Bits that the place of a patch takes.
const PLACE_BITS: usize = 16;
/// Bytes that say how many patches there are and how wide.
const PATCH_HEAD_BYTES: usize = 3;
/// Numbers that are added up before they become values.
const ADDED_UP: usize = 64;
/// Residuals of which the middle is taken.
const SAMPLED: usize = 32;

/// Room to plan in.
#[derive(Default)]
pub(super) struct Room {
    /// The distances from the first, divided.
    distances: Vec<i64>,
    residuals: Vec<i64>,
}

impl Room {
    pub(super) fn bytes(&self) -> usize {
        (self.distances.capacity() + self.residuals.capacity()) * size_of::<i64>()
    }
}

/// How residuals follow from distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Frame,
    Delta,
    /// Holds the first distance.
    Change(i64),
    /// Holds the slope.
    Line(i64),
}

/// A way to pack some integers, and how many bytes it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    first: i64,
    divisor: u64,
    way: Way,
    packing: Packing,
    len: usize,
}

/// How residuals are packed.
#[derive(Clone, Copy, Debug)]
struct Packing {
    base: i64,
    width: u32,
    /// Bits of the widest residual, `width` where nothing is patched.
    widest: u32,
    patches: usize,
    bits: usize,
}

impl Plan {
    /// Bytes that [`encode`] will write.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// The best plan for the numbers, of which there is at least one.
pub(super) fn plan(numbers: &[i64], room: &mut Room) -> Plan {
    let first = numbers[0];
    let divisor = common_divisor(numbers);
    fill_distances(numbers, divisor, room);
    let Room { distances, residuals } = room;
    let mut best: Option<Plan> = None;
    for way in ways(distances) {
        fill_residuals(distances, way, residuals);
        let packing = Packing::of(residuals);
        let len = head_len(first, divisor, way, &packing) + packing.bits.div_ceil(8);
        if best.is_none_or(|best| len < best.len) {
            best = Some(Plan { first, divisor, way, packing, len });
        }
        if packing.bits == 0 {
            break;
        }
    }
    best.expect("a frame is always a way")
}

/// Appends the numbers as planned.
pub(super) fn encode(numbers: &[i64], plan: &Plan, room: &mut Room, out: &mut Vec<u8>) {
    let before = out.len();
    let Packing { base, width, widest, patches, .. } = plan.packing;
    fill_distances(numbers, plan.divisor, room);
    fill_residuals(&room.distances, plan.way, &mut room.residuals);
    let (way, aux) = match plan.way {
        Way::Frame => (0, None),
        Way::Delta => (1, None),
        Way::Change(distance) => (2, Some(distance)),
        Way::Line(slope) => (3, Some(slope)),
    };
    let divisor = if plan.divisor > 1 { HAS_DIVISOR } else { 0 };
    out.push(way | divisor | if patches > 0 { HAS_PATCHES } else { 0 });
    out.push(width as u8);
    put_varint(out, zigzag(plan.first));
    if plan.divisor > 1 {
        put_varint(out, plan.divisor);
    }
    put_varint(out, zigzag(base));
    if let Some(aux) = aux {
        put_varint(out, zigzag(aux));
    }
    let packed = || room.residuals.iter().map(|residual| residual.wrapping_sub(base) as u64);
    if patches > 0 {
        out.extend_from_slice(&(patches as u16).to_le_bytes());
        out.push(widest as u8);
    }
    pack(packed(), width, out);
    if patches > 0 {
        // Something needs more than `width` bits, so that is below 64.
        let patched = || packed().enumerate().filter(|(_, number)| number >> width != 0);
        patched().for_each(|(place, _)| out.extend_from_slice(&(place as u16).to_le_bytes()));
        pack(patched().map(|(_, number)| number >> width), widest - width, out);
    }
    debug_assert_eq!(out.len() - before, plan.len);
}

/// What stands before packed numbers.
#[derive(Clone, Copy)]
pub(super) struct Header {
    first: i64,
    divisor: i64,
    base: i64,
    way: Way,
    residuals: usize,
    width: u32,
    patches: usize,
    widest: u32,
}

impl Header {
    /// Takes it off the front of a column of `count` numbers.
    pub(super) fn take(fields: &mut Fields<'_>, count: usize) -> Result<Header, ColumnError> {
        let (form, width) = (fields.byte()?, u32::from(fields.byte()?));
        if form > FORM_MAX || width > 64 {
            return Err(ColumnError::Form);
        }
        let first = fields.signed()?;
        let divisor = if form & HAS_DIVISOR != 0 { fields.varint()? as i64 } else { 1 };
        let base = fields.signed()?;
        let way = match form & 3 {
            0 => Way::Frame,
            1 => Way::Delta,
            2 => Way::Change(fields.signed()?),
            _ => Way::Line(fields.signed()?),
        };
        let residuals = residual_count(count, way);
        let (mut patches, mut widest) = (0, width);
        if form & HAS_PATCHES != 0 {
            (patches, widest) = (usize::from(fields.u16()?), u32::from(fields.byte()?));
            if patches > residuals || widest <= width || widest > 64 {
                return Err(ColumnError::Form);
            }
        }
        Ok(Header { first, divisor, base, way, residuals, width, patches, widest })
    }

    /// The first number and the distance of all, where the distances are one and the same: nothing follows then.
    pub(super) fn steady(&self) -> Option<(i64, i64)> {
        let is_steady = self.way == Way::Delta && self.width == 0 && self.patches == 0;
        is_steady.then(|| (self.first, self.base.wrapping_mul(self.divisor)))
    }

    /// Whether the numbers rise strictly whatever is packed: each distance is a positive number and what is packed, or the
    /// line is steeper than what is packed is high. True only where none of them comes near to 64 bits.
    pub(super) fn rises(&self) -> bool {
        let is_small = self.first.unsigned_abs() < 1 << 50
            && self.base.unsigned_abs() < 1 << 24
            && self.widest <= 24
            && (1..1 << 24).contains(&self.divisor);
        is_small
            && match self.way {
                // At most 2^10 distances of 2^25 times 2^24.
                Way::Delta => self.base > 0,
                Way::Line(slope @ 0..=SLOPE_MAX) => {
                    self.divisor == 1 && slope >> SLOPE_BITS >= 1 << self.widest
                }
                Way::Line(_) | Way::Frame | Way::Change(_) => false,
            }
    }
}

/// Takes `count` numbers, 1 to as many as a column holds, off the front of `fields`; those behind are undefined.
pub(super) fn decode(fields: &mut Fields<'_>, count: usize, out: &mut Numbers) -> Result<(), ColumnError> {
    let header = Header::take(fields, count)?;
    decode_behind(header, fields, count, out)
}

/// The same, each as `to` makes it; `numbers` is room.
///
/// Distances add up one after the other, and a division takes long but need not wait: one block is added up while the
/// one before is divided.
pub(super) fn decode_as(
    fields: &mut Fields<'_>,
    numbers: &mut Numbers,
    out: &mut [f64],
    to: impl Fn(i64) -> f64,
) -> Result<(), ColumnError> {
    let header = Header::take(fields, out.len())?;
    if header.way != Way::Delta || header.steady().is_some() {
        decode_behind(header, fields, out.len(), numbers)?;
        out.iter_mut().zip(numbers).for_each(|(value, number)| *value = to(*number));
        return Ok(());
    }
    unpack_residuals(&header, fields, numbers)?;
    let Header { mut first, divisor, base, .. } = header;
    for (values, residuals) in out.chunks_mut(ADDED_UP).zip(numbers.chunks_mut(ADDED_UP)) {
        first = match divisor {
            1 => from_deltas(residuals, first, |residual| residual.wrapping_add(base)),
            _ => from_deltas(residuals, first, |residual| residual.wrapping_add(base).wrapping_mul(divisor)),
        };
        values.iter_mut().zip(residuals).for_each(|(value, number)| *value = to(*number));
    }
    Ok(())
}

/// The same, behind a header that has been taken.
pub(super) fn decode_behind(
    header: Header,
    fields: &mut Fields<'_>,
    count: usize,
    out: &mut Numbers,
) -> Result<(), ColumnError> {
    debug_assert!((1..=out.len()).contains(&count));
    if let Some((first, distance)) = header.steady() {
        fill_steady(&mut out[..count], first, distance);
        return Ok(());
    }
    unpack_residuals(&header, fields, out)?;
    let Header { first, divisor, base, way, .. } = header;
    // One loop for each way, and for what is common, so that each is as short as can be.
    match (way, divisor) {
        (Way::Delta, 1) => {
            from_deltas(&mut out[..count], first, |residual| residual.wrapping_add(base));
        }
        (Way::Delta, _) => {
            let delta = |residual: i64| residual.wrapping_add(base).wrapping_mul(divisor);
            from_deltas(&mut out[..count], first, delta);
        }
        (Way::Frame, 1) => {
            let first = first.wrapping_add(base);
            out[..count].iter_mut().for_each(|number| *number = number.wrapping_add(first));
        }
        (Way::Frame, _) => {
            let number = |residual: i64| residual.wrapping_add(base).wrapping_mul(divisor);
            out[..count].iter_mut().for_each(|place| *place = number(*place).wrapping_add(first));
        }
        (Way::Change(distance), _) => {
            let (mut number, mut distance) = (first, distance);
            for place in &mut out[..count] {
                let change = place.wrapping_add(base);
                *place = number;
                number = number.wrapping_add(distance.wrapping_mul(divisor));
                distance = distance.wrapping_add(change);
            }
        }
        // What rises, as clocks do: no line is negative then, and a shift without a sign is done several at a time.
        (Way::Line(slope @ 0..=SLOPE_MAX), 1) => {
            let (first, mut line) = (first.wrapping_add(base), 0u64);
            for place in &mut out[..count] {
                *place = place.wrapping_add(first).wrapping_add((line >> SLOPE_BITS) as i64);
                line += slope as u64;
            }
        }
        (Way::Line(slope), 1) => {
            let (first, mut line) = (first.wrapping_add(base), 0i64);
            for place in &mut out[..count] {
                *place = place.wrapping_add(first).wrapping_add(line >> SLOPE_BITS);
                line = line.wrapping_add(slope);
            }
        }
        (Way::Line(slope), _) => {
            for (at, place) in out[..count].iter_mut().enumerate() {
                let distance = place.wrapping_add(base).wrapping_add(on_line(slope, at));
                *place = distance.wrapping_mul(divisor).wrapping_add(first);
            }
        }
    }
    Ok(())
}

/// Takes the numbers of a header that [`Header::rises`], multiplied by 2^`scale_bits`, which may wrap; returns the first and
/// the last as they are.
pub(super) fn decode_rising(
    header: Header,
    fields: &mut Fields<'_>,
    count: usize,
    scale_bits: u32,
    out: &mut Numbers,
) -> Result<(i64, i64), ColumnError> {
    debug_assert!((1..=out.len()).contains(&count));
    let Way::Line(slope) = header.way else {
        decode_behind(header, fields, count, out)?;
        let numbers = &mut out[..count];
        let ends = (numbers[0], numbers[count - 1]);
        numbers.iter_mut().for_each(|number| *number <<= scale_bits);
        return Ok(ends);
    };
    unpack_residuals(&header, fields, out)?;
    let first = header.first + header.base;
    let ends = (out[0] + first, out[count - 1] + first + on_line(slope, count - 1));
    let mut line = 0u64;
    for place in &mut out[..count] {
        *place = (*place + first + (line >> SLOPE_BITS) as i64) << scale_bits;
        line += slope as u64;
    }
    Ok(ends)
}

/// What is packed, without its base.
fn unpack_residuals(header: &Header, fields: &mut Fields<'_>, out: &mut Numbers) -> Result<(), ColumnError> {
    let Header { residuals, width, patches, widest, .. } = *header;
    unpack(fields.slice(packed_len(residuals, width))?, residuals, width, out);
    if patches > 0 {
        let places = fields.slice(patches * 2)?.as_chunks::<2>().0;
        let mut upper = [0; COLUMN_SAMPLES_MAX];
        let bits = widest - width;
        unpack(fields.slice(packed_len(patches, bits))?, patches, bits, &mut upper);
        for (place, upper) in places.iter().zip(upper) {
            let place = usize::from(u16::from_le_bytes(*place));
            let patched = out[..residuals].get_mut(place).ok_or(ColumnError::Form)?;
            *patched |= upper << width;
        }
    }
    Ok(())
}

/// Numbers at one distance; eight side by side, so that they need not wait for each other.
pub(super) fn fill_steady(places: &mut [i64], first: i64, distance: i64) {
    let mut eight: [i64; 8] = std::array::from_fn(|at| first.wrapping_add(distance.wrapping_mul(at as i64)));
    let stride = distance.wrapping_mul(8);
    let (blocks, rest) = places.as_chunks_mut::<8>();
    for block in blocks {
        *block = eight;
        eight.iter_mut().for_each(|number| *number = number.wrapping_add(stride));
    }
    rest.iter_mut().zip(eight).for_each(|(place, number)| *place = number);
}

/// Returns the number behind the last.
#[inline(always)]
fn from_deltas(places: &mut [i64], first: i64, delta: impl Fn(i64) -> i64) -> i64 {
    let mut number = first;
    for place in places {
        let next = number.wrapping_add(delta(*place));
        *place = number;
        number = next;
    }
    number
}

fn on_line(slope: i64, at: usize) -> i64 {
    slope.wrapping_mul(at as i64) >> SLOPE_BITS
}

fn residual_count(count: usize, way: Way) -> usize {
    match way {
        Way::Frame | Way::Line(_) => count,
        Way::Delta => count - 1,
        Way::Change(_) => count.saturating_sub(2),
    }
}

/// The greatest number that divides the distance of each number from the first; 1 where all are the same.
fn common_divisor(numbers: &[i64]) -> u64 {
    let mut divisor = 0;
    let distances = numbers.iter().map(|number| number.wrapping_sub(numbers[0]).unsigned_abs());
    for distance in distances {
        if distance == 0 || (divisor != 0 && distance % divisor == 0) {
            continue;
        }
        let (mut a, mut b) = (distance, divisor);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        divisor = a;
        if divisor == 1 {
            break;
        }
    }
    // A distance of 2^63 has no positive i64; such columns are not worth the exception.
    if divisor >> 63 != 0 { 1 } else { divisor.max(1) }
}

fn fill_distances(numbers: &[i64], divisor: u64, room: &mut Room) {
    room.distances.clear();
    let distances = numbers.iter().map(|number| number.wrapping_sub(numbers[0]));
    match divisor {
        1 => room.distances.extend(distances),
        _ if divisor.is_power_of_two() => {
            let shift = divisor.trailing_zeros();
            room.distances.extend(distances.map(|distance| distance >> shift));
        }
        _ => room.distances.extend(distances.map(|distance| distance / divisor as i64)),
    }
}

/// The ways worth a look, those that end the search early first.
fn ways(distances: &[i64]) -> impl Iterator<Item = Way> + use<> {
    let last = distances[distances.len() - 1];
    let change = (distances.len() > 2).then(|| Way::Change(distances[1]));
    let has_line = distances.len() > 2 && last.unsigned_abs() < LINE_MAX;
    let line = has_line.then(|| Way::Line((last << SLOPE_BITS) / (distances.len() as i64 - 1)));
    let delta = (distances.len() > 1).then_some(Way::Delta);
    [delta, Some(Way::Frame), change, line].into_iter().flatten()
}

fn fill_residuals(distances: &[i64], way: Way, residuals: &mut Vec<i64>) {
    residuals.clear();
    match way {
        Way::Frame => residuals.extend_from_slice(distances),
        Way::Delta => residuals.extend(distances.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]))),
        Way::Change(_) => residuals.extend(distances.windows(3).map(|three| {
            let [before, now] = [three[1].wrapping_sub(three[0]), three[2].wrapping_sub(three[1])];
            now.wrapping_sub(before)
        })),
        Way::Line(slope) => {
            let at_place = distances.iter().enumerate();
            residuals.extend(at_place.map(|(at, distance)| distance.wrapping_sub(on_line(slope, at))));
        }
    }
}

impl Packing {
    /// The best packing of these residuals.
    fn of(residuals: &[i64]) -> Packing {
        let Some(&least) = residuals.iter().min() else {
            return Packing { base: 0, width: 0, widest: 0, patches: 0, bits: 0 };
        };
        let plain = Packing::on(least, residuals);
        let fence = low_fence(residuals);
        if least >= fence || plain.width == 0 {
            return plain;
        }
        let above = residuals.iter().copied().filter(|&residual| residual >= fence).min();
        let fenced = Packing::on(above.unwrap_or(least), residuals);
        if fenced.bits < plain.bits { fenced } else { plain }
    }

    /// With that base, the width that takes the fewest bits.
    fn on(base: i64, residuals: &[i64]) -> Packing {
        let mut of_bits = [0u16; 65];
        for residual in residuals {
            of_bits[64 - (residual.wrapping_sub(base) as u64).leading_zeros() as usize] += 1;
        }
        let widest = of_bits.iter().rposition(|&count| count > 0).unwrap_or(0);
        let bits = residuals.len() * widest;
        let mut best = Packing { base, width: widest as u32, widest: widest as u32, patches: 0, bits };
        let mut patches = 0;
        for width in (0..widest).rev() {
            patches += usize::from(of_bits[width + 1]);
            // The packed parts end on whole bytes.
            let packed = (residuals.len() * width).next_multiple_of(8);
            let upper = patches * (widest - width);
            let bits = packed + PATCH_HEAD_BYTES * 8 + patches * PLACE_BITS + upper;
            if bits < best.bits {
                best = Packing { base, width: width as u32, widest: widest as u32, patches, bits };
            }
        }
        best
    }
}

/// Residuals below it are outliers: a few times the middle half's spread below that.
fn low_fence(residuals: &[i64]) -> i64 {
    let mut sampled = [0; SAMPLED];
    let step = residuals.len().div_ceil(SAMPLED);
    let mut count = 0;
    for (place, residual) in sampled.iter_mut().zip(residuals.iter().step_by(step)) {
        *place = *residual;
        count += 1;
    }
    let sampled = &mut sampled[..count];
    sampled.sort_unstable();
    let (low, high) = (sampled[count / 4], sampled[count * 3 / 4]);
    low.saturating_sub(high.saturating_sub(low).saturating_mul(4))
}

fn head_len(first: i64, divisor: u64, way: Way, packing: &Packing) -> usize {
    let divisor = if divisor > 1 { varint_len(divisor) } else { 0 };
    let aux = match way {
        Way::Frame | Way::Delta => 0,
        Way::Change(aux) | Way::Line(aux) => varint_len(zigzag(aux)),
    };
    2 + varint_len(zigzag(first)) + divisor + varint_len(zigzag(packing.base)) + aux
}
