//! Lines end in CRLF, here without exception.
//!
//! RFC 9112 §2.2 lets a recipient take a lone LF as a line end. A proxy in front that does not would see
//! another message than we do, so a lone LF is refused where it stands.

/// A LF without a CR before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BareLineFeed;

/// The position behind the first line of `bytes`, or `None` if its end has not arrived.
/// `bytes` begins with the line; its first `scanned` bytes are known to hold no LF.
pub(crate) fn line_end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, BareLineFeed> {
    #[cfg(test)]
    work::count(bytes.len() - scanned);
    let Some(found) = memchr::memchr(b'\n', &bytes[scanned..]) else {
        return Ok(None);
    };
    let line_feed = scanned + found;
    if line_feed == 0 || bytes[line_feed - 1] != b'\r' {
        return Err(BareLineFeed);
    }
    Ok(Some(line_feed + 1))
}

/// Why no head could be cut off a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadEndError {
    /// A LF without a CR before it.
    BareLineFeed,
    /// No blank line within the bytes allowed.
    TooLarge,
}

/// The position behind the blank line that ends a head of at most `bytes_max` bytes.
/// `head` begins with the head. `scanned` is where the last search stopped; it is moved on, so that a head in
/// many pieces is searched once.
pub(crate) fn head_end(
    head: &[u8],
    scanned: &mut usize,
    bytes_max: usize,
) -> Result<Option<usize>, HeadEndError> {
    // The window keeps the verdict independent of how much lies behind it.
    let window = &head[..head.len().min(bytes_max)];
    for found in memchr::memchr_iter(b'\n', &window[(*scanned).min(window.len())..]) {
        let line_feed = *scanned + found;
        if line_feed == 0 || window[line_feed - 1] != b'\r' {
            return Err(HeadEndError::BareLineFeed);
        }
        if line_feed >= 3 && window[line_feed - 3..line_feed - 1] == *b"\r\n" {
            return Ok(Some(line_feed + 1));
        }
    }
    #[cfg(test)]
    work::count(window.len() - (*scanned).min(window.len()));
    if head.len() > bytes_max {
        return Err(HeadEndError::TooLarge);
    }
    *scanned = window.len();
    Ok(None)
}

/// Counts the bytes looked at or moved, so that tests can tell linear work from quadratic.
#[cfg(test)]
pub(crate) mod work {
    use std::cell::Cell;

    thread_local!(static BYTES: Cell<usize> = const { Cell::new(0) });

    /// Adds to this thread's count.
    pub(crate) fn count(bytes: usize) {
        BYTES.set(BYTES.get() + bytes);
    }

    /// This thread's count, which starts anew.
    pub(crate) fn take() -> usize {
        BYTES.take()
    }
}
