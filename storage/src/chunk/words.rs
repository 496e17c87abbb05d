//! Words behind each other, in memory that grows without moving what is there.
//!
//! ```text
//!   first [·····]      in the writer itself, so in the row of its series
//!   last  [·········→ before [··············]→ before [··············]      blocks of one size
//! ```
//!
//! The first words are few, and beside the row's other fields: a series that has just begun, or ends soon, as what churns
//! does, allocates nothing. Behind them blocks of one size are taken one by one: nothing is copied, no block is longer
//! than what it may waste, and one that is free fits whoever comes next.
//! Tried before: a list that grew by half. Growing it was an eighth of the server's time in remote write, for what it left
//! behind fitted nobody, and the allocator put it together and took it apart again.

/// Words in the writer itself.
const FIRST_WORDS: usize = 5;
/// Words of a block: with the way to the block before it and the allocator's own word it takes 128 bytes.
const BLOCK_WORDS: usize = 14;

const _: () = assert!(size_of::<Block>() + size_of::<usize>() == 128);

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Words {
    last: Option<Box<Block>>,
    first: [u64; FIRST_WORDS],
    len: u16,
    blocks: u16,
}

#[derive(Clone, Debug)]
struct Block {
    words: [u64; BLOCK_WORDS],
    before: Option<Box<Block>>,
}

impl Default for Words {
    fn default() -> Words {
        Words { last: None, first: [0; FIRST_WORDS], len: 0, blocks: 0 }
    }
}

impl Words {
    /// How many there are.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Bytes of heap held.
    #[inline(always)]
    pub(super) fn heap_bytes(&self) -> usize {
        usize::from(self.blocks) * size_of::<Block>()
    }

    /// Adds one behind the others.
    ///
    /// # Panics
    /// With a block's words less than [`u16::MAX`] of them: no chunk and no column has as many.
    #[inline(always)]
    pub(super) fn push(&mut self, word: u64) {
        let at = self.len();
        match self.first.get_mut(at) {
            Some(place) => *place = word,
            None => self.push_behind(at - FIRST_WORDS, word),
        }
        self.len += 1;
    }

    fn push_behind(&mut self, at: usize, word: u64) {
        match &mut self.last {
            Some(last) if !at.is_multiple_of(BLOCK_WORDS) => last.words[at % BLOCK_WORDS] = word,
            _ => self.add_block(word),
        }
    }

    #[cold]
    fn add_block(&mut self, word: u64) {
        assert!(self.len < u16::MAX - BLOCK_WORDS as u16);
        let mut words = [0; BLOCK_WORDS];
        words[0] = word;
        let before = self.last.take();
        self.last = Some(Box::new(Block { words, before }));
        self.blocks += 1;
    }

    /// Puts them down in the same order, highest bits first; as many as there are places.
    pub(super) fn write_to(&self, places: &mut [[u8; 8]]) {
        let put = |places: &mut [[u8; 8]], words: &[u64]| {
            places.iter_mut().zip(words).for_each(|(place, word)| *place = word.to_be_bytes());
        };
        let (first, mut behind) = places.split_at_mut(FIRST_WORDS.min(self.len()));
        put(first, &self.first);
        let mut block = self.last.as_deref();
        while let Some(Block { words, before }) = block {
            let own = behind.len().saturating_sub(1) / BLOCK_WORDS * BLOCK_WORDS;
            put(&mut behind[own..], words);
            behind = &mut behind[..own];
            block = before.as_deref();
        }
    }
}

impl Extend<u64> for Words {
    fn extend<T: IntoIterator<Item = u64>>(&mut self, words: T) {
        words.into_iter().for_each(|word| self.push(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there are, they come back in order, and memory is counted as it is taken; a copy goes its own way.
    /// Method: the naive twin is a list; each length from none to several blocks.
    #[test]
    fn words_come_back_in_order_at_every_length() {
        let (mut words, mut twin) = (Words::default(), Vec::new());
        for word in 0..100u64 {
            let mut places = vec![[0xff; 8]; twin.len()];
            words.write_to(&mut places);
            assert_eq!(places, twin.iter().map(|word: &u64| word.to_be_bytes()).collect::<Vec<_>>());
            assert_eq!(words.len(), twin.len());
            let behind_first = twin.len().saturating_sub(FIRST_WORDS);
            let blocks = std::iter::successors(words.last.as_deref(), |block| block.before.as_deref());
            assert_eq!(blocks.clone().count(), behind_first.div_ceil(BLOCK_WORDS));
            assert_eq!(words.heap_bytes(), blocks.map(size_of_val).sum::<usize>());
            let mut copy = words.clone();
            copy.push(u64::MAX);
            words.push(word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            twin.push(word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut places = vec![[0; 8]; twin.len()];
            copy.write_to(&mut places);
            assert_eq!(places.last(), Some(&[0xff; 8]));
        }
    }
}
