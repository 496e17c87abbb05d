//! A key by which texts are told apart by 128 bits of their hash, so that the texts themselves need not be kept.

use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Bytes of the key; the hash asks for 136 at least.
const SECRET_BYTES: usize = 192;

/// What a text hashes to under one [`TextKey`]. Equal hashes are taken for equal texts: that any two of a billion texts
/// share one has a chance of 10⁻²¹, and nobody who does not know the key can look for such a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextHash(pub [u64; 2]);

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct TextKey(Box<[u8; SECRET_BYTES]>);

impl TextKey {
    /// The key of that seed, which no client may know.
    pub fn new(seed: u64) -> TextKey {
        let mut secret = Box::new([0; SECRET_BYTES]);
        let mut state = seed;
        for word in secret.chunks_exact_mut(8) {
            // splitmix64, so that every bit of the seed reaches every word.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
        }
        TextKey(secret)
    }

    /// The hash of a text.
    #[inline]
    pub fn hash(&self, text: &[u8]) -> TextHash {
        let hash = xxh3_128_with_secret(text, &self.0[..]);
        TextHash([hash as u64, (hash >> 64) as u64])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_gives_another_hash_and_the_same_key_the_same() {
        for len in [0, 1, 7, 16, 100, 240, 1_000] {
            let text = vec![b'x'; len];
            assert_eq!(TextKey::new(3).hash(&text), TextKey::new(3).hash(&text));
            assert_ne!(TextKey::new(3).hash(&text), TextKey::new(4).hash(&text));
        }
    }
}
