//! Protobuf for tests, by its description: what is sent is read by somebody else than who wrote it.

/// The fields of a message: number, and the value's bytes.
///
/// # Panics
/// At a wire type that remote write has no use for, and at the end of bytes that should go on.
pub(crate) fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = message.split_first() {
        let varint = rest.iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let (skip, bytes) = match key & 7 {
            0 => (0, varint),
            1 => (0, 8),
            2 => (varint, number(&rest[..varint]) as usize),
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, rest[skip..skip + bytes].to_vec()));
        message = &rest[skip + bytes..];
    }
    found
}

/// What a varint says.
pub(crate) fn number(varint: &[u8]) -> u64 {
    varint.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}
