//! A client's address as text: its name where it gives none.

use std::io::Write as _;
use std::net::IpAddr;

/// No address is longer as text: eight groups of four digits, the last two of them as IPv4.
pub const ADDRESS_TEXT_BYTES_MAX: usize = 45;

/// See the head of this file. Made only when somebody reads it: a known client's is not.
pub struct AddressText {
    bytes: [u8; ADDRESS_TEXT_BYTES_MAX],
    len: usize,
}

impl AddressText {
    /// As the standard library writes it.
    pub fn of(address: IpAddr) -> AddressText {
        let mut bytes = [0; ADDRESS_TEXT_BYTES_MAX];
        let mut rest: &mut [u8] = &mut bytes;
        // What did not fit would only shorten a client's name.
        let _ = write!(rest, "{address}");
        let len = ADDRESS_TEXT_BYTES_MAX - rest.len();
        AddressText { bytes, len }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::AddressText;

    #[test]
    fn the_longest_addresses_fit() {
        for address in
            ["127.0.0.1", "ffff:eeee:dddd:cccc:bbbb:aaaa:9999:8888", "::ffff:255.255.255.255", "::1"]
        {
            let text = AddressText::of(address.parse().unwrap());
            assert_eq!(text.as_bytes(), address.as_bytes());
        }
    }
}
