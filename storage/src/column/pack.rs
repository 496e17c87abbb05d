//! Numbers of one width, back to back, lowest bit first.
//!
//! Sixty-four numbers of `w` bits are `w` whole words, so a block is unpacked with places known when the program was
//! compiled: per number a load, a shift or two and a mask, no branch, no dependency on the number before.

/// Numbers in a block.
pub(super) const BLOCK: usize = 64;

/// Bytes of so many numbers.
pub(super) fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends the lowest `width` bits of each number.
pub(super) fn pack(numbers: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let (mut register, mut filled) = (0u64, 0);
    for number in numbers {
        let number = number & mask;
        register |= number << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&register.to_le_bytes());
            filled -= 64;
            // What did not fit; a shift by all 64 bits is what an empty register needs, and `>>` cannot say it.
            register = if filled == 0 { 0 } else { number >> (width - filled) };
        }
    }
    out.extend_from_slice(&register.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Unpacks `count` numbers from exactly [`packed_len`] bytes. Behind them, to the end of their block, `out` is undefined.
///
/// # Panics
/// If `width` is above 64, `bytes` is not that long, or `out` has no room for whole blocks: the caller has checked.
pub(super) fn unpack(bytes: &[u8], count: usize, width: u32, out: &mut [i64]) {
    assert!(width <= 64 && bytes.len() == packed_len(count, width));
    let (blocks, _) = out.as_chunks_mut::<BLOCK>();
    assert!(blocks.len() * BLOCK >= count);
    let wanted = &mut blocks[..count.div_ceil(BLOCK)];
    if width == 0 {
        return wanted.as_flattened_mut().fill(0);
    }
    let block_len = width as usize * (BLOCK / 8);
    let unpack_block = UNPACK[width as usize - 1];
    // The last block may be cut short, and be as long as a whole one all the same.
    let (whole, rest) = bytes.split_at(count / BLOCK * block_len);
    for (block, bytes) in wanted.iter_mut().zip(whole.chunks_exact(block_len)) {
        unpack_block(bytes, block);
    }
    if let (Some(last), true) = (wanted.last_mut(), !count.is_multiple_of(BLOCK)) {
        let mut padded = [0; 64 * BLOCK / 8];
        padded[..rest.len()].copy_from_slice(rest);
        unpack_block(&padded[..block_len], last);
    }
}

type UnpackBlock = fn(&[u8], &mut [i64; BLOCK]);

/// By width, from 1 on.
static UNPACK: [UnpackBlock; 64] = {
    macro_rules! of_widths {
        ($($width:literal)*) => { [$(unpack_block::<$width>),*] };
    }
    of_widths!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64)
};

fn unpack_block<const WIDTH: usize>(bytes: &[u8], out: &mut [i64; BLOCK]) {
    let mut words = [0; WIDTH];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    macro_rules! each {
        ($($at:literal)*) => { $(out[$at] = number_at::<WIDTH, $at>(&words);)* };
    }
    each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
        32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
}

/// One number; all that is not a word is known when this is compiled.
#[inline(always)]
fn number_at<const WIDTH: usize, const AT: usize>(words: &[u64; WIDTH]) -> i64 {
    let (word, shift) = (AT * WIDTH / 64, AT * WIDTH % 64);
    let mut number = words[word] >> shift;
    if shift + WIDTH > 64 {
        number |= words[word + 1] << (64 - shift);
    }
    (number & (u64::MAX >> (64 - WIDTH))) as i64
}
