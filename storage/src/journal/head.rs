//! The first 4,096 bytes of a journal file: whose it is, and where the file before it ended.
//!
//! Two equal copies, in sectors of their own, so that one damaged sector does not orphan a file.
//! Written with the file's first frame; before that the block is zeros and the file is only prepared.

use super::JournalPosition;

/// Bytes before the first frame.
pub const HEAD_BYTES: usize = 4096;
/// The version that this code writes and the only one it reads.
pub const JOURNAL_FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"rwjournl";
const COPY_BYTES: usize = 80;
const COPIES_AT: [usize; 2] = [0, HEAD_BYTES / 2];
const FLAG_ABANDONED: u32 = 1;

const _: () = assert!(COPY_BYTES <= HEAD_BYTES / 2);

/// Where the journal stood when a file was begun; the default before a journal's first file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// The last good position before this file. Nothing behind it, in its own file or in one between,
    /// is ever replayed.
    pub end: JournalPosition,
    /// How far `end`'s file was known to be on the device; at most `end.offset`.
    pub synced: u64,
    /// Whether a write or a sync behind `end` had failed.
    pub abandoned: bool,
}

/// What a file's first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHead {
    /// The run that began the file.
    pub run: u64,
    /// Which loop's journal.
    pub loop_index: u16,
    /// The file's number, as in its name.
    pub sequence: u64,
    /// Offset of its first record.
    pub first_offset: u64,
    /// Bytes of the file, all written before its first frame was.
    pub file_bytes: u64,
    /// What came before.
    pub previous: Previous,
}

/// What stands in a file's first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFound {
    /// A head.
    Good(FileHead),
    /// Zeros: prepared, never begun.
    Zeros,
    /// A head of a version that this code does not know.
    Version(u32),
    /// Neither.
    Bad,
}

impl FileHead {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut copy = [0; COPY_BYTES];
        copy[0..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&JOURNAL_FORMAT_VERSION.to_le_bytes());
        copy[12..14].copy_from_slice(&self.loop_index.to_le_bytes());
        copy[16..24].copy_from_slice(&self.run.to_le_bytes());
        copy[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        copy[32..40].copy_from_slice(&self.first_offset.to_le_bytes());
        copy[40..48].copy_from_slice(&self.file_bytes.to_le_bytes());
        copy[48..56].copy_from_slice(&self.previous.end.sequence.to_le_bytes());
        copy[56..64].copy_from_slice(&self.previous.end.offset.to_le_bytes());
        copy[64..72].copy_from_slice(&self.previous.synced.to_le_bytes());
        let flags = if self.previous.abandoned { FLAG_ABANDONED } else { 0 };
        copy[72..76].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32c::crc32c(&copy[..76]);
        copy[76..80].copy_from_slice(&crc.to_le_bytes());
        let mut block = [0; HEAD_BYTES];
        for at in COPIES_AT {
            block[at..at + COPY_BYTES].copy_from_slice(&copy);
        }
        block
    }

    /// Looks for the head of that file.
    pub(super) fn find(block: &[u8], loop_index: u16, sequence: u64) -> HeadFound {
        let mut found = if block.iter().all(|&byte| byte == 0) { HeadFound::Zeros } else { HeadFound::Bad };
        for at in COPIES_AT {
            match block.get(at..).and_then(<[u8]>::first_chunk).and_then(Self::decode) {
                Some(Ok(head)) if head.loop_index == loop_index && head.sequence == sequence => {
                    return HeadFound::Good(head);
                }
                Some(Err(version)) => found = HeadFound::Version(version),
                _ => {}
            }
        }
        found
    }

    /// A copy of the head; the version where it is not ours.
    fn decode(copy: &[u8; COPY_BYTES]) -> Option<Result<FileHead, u32>> {
        let u32_at = |at: usize| u32::from_le_bytes([copy[at], copy[at + 1], copy[at + 2], copy[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if copy[..8] != MAGIC || u32_at(76) != crc32c::crc32c(&copy[..76]) {
            return None;
        }
        if u32_at(8) != JOURNAL_FORMAT_VERSION {
            return Some(Err(u32_at(8)));
        }
        let end = JournalPosition { sequence: u64_at(48), offset: u64_at(56) };
        let abandoned = u32_at(72) & FLAG_ABANDONED != 0;
        Some(Ok(FileHead {
            loop_index: u16::from_le_bytes([copy[12], copy[13]]),
            run: u64_at(16),
            sequence: u64_at(24),
            first_offset: u64_at(32),
            file_bytes: u64_at(40),
            previous: Previous { end, synced: u64_at(64), abandoned },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_and_survives_the_loss_of_one_copy() {
        let end = JournalPosition { sequence: 6, offset: 9_000 };
        for previous in [Previous::default(), Previous { end, synced: 8_000, abandoned: true }] {
            let head = FileHead {
                run: 3,
                loop_index: 2,
                sequence: 7,
                first_offset: 1 << 33,
                file_bytes: 65_536,
                previous,
            };
            let block = head.encode();
            assert_eq!(FileHead::find(&block, 2, 7), HeadFound::Good(head));
            assert_eq!(FileHead::find(&block, 2, 8), HeadFound::Bad, "renamed by hand");
            assert_eq!(FileHead::find(&block, 1, 7), HeadFound::Bad);
            for copy in COPIES_AT {
                for bit in 0..COPY_BYTES * 8 {
                    let mut turned = block;
                    turned[copy + bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(FileHead::find(&turned, 2, 7), HeadFound::Good(head), "bit {bit} at {copy}");
                }
            }
        }
        assert_eq!(FileHead::find(&[0; HEAD_BYTES], 2, 7), HeadFound::Zeros);
    }

    #[test]
    fn a_newer_version_is_named() {
        let head = FileHead {
            run: 3,
            loop_index: 0,
            sequence: 7,
            first_offset: 0,
            file_bytes: 1,
            previous: Previous::default(),
        };
        let mut block = head.encode();
        for at in COPIES_AT {
            block[at + 8] = 9;
            let crc = crc32c::crc32c(&block[at..at + 76]);
            block[at + 76..at + 80].copy_from_slice(&crc.to_le_bytes());
        }
        assert_eq!(FileHead::find(&block, 0, 7), HeadFound::Version(9));
    }
}
