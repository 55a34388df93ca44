//! What the sandbox makes up: ids, values, wallets. All of it comes from the injected [`Randomness`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Randomness;

/// Uniform random bytes: five bits of one base32 digit and three of the next make each of them.
pub(super) fn bytes<const N: usize>(randomness: &Randomness) -> [u8; N] {
    let digits = randomness.base32(N * 2).into_bytes();
    std::array::from_fn(|index| five_bits(digits[2 * index]) << 3 | five_bits(digits[2 * index + 1]) & 7)
}

fn five_bits(digit: u8) -> u8 {
    match digit {
        b'a'..=b'z' => digit - b'a',
        _ => digit - b'2' + 26,
    }
}

/// A random (version 4) UUID.
pub(super) fn uuid(randomness: &Randomness) -> String {
    uuid::Builder::from_random_bytes(bytes(randomness)).into_uuid().to_string()
}

/// 43 base64url characters, the length of the real service's values.
pub(super) fn opaque(randomness: &Randomness) -> String {
    URL_SAFE_NO_PAD.encode(bytes::<32>(randomness))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_byte_value_occurs() {
        let randomness = Randomness::from_seed(1);
        let seen: HashSet<u8> = (0..200).flat_map(|_| bytes::<64>(&randomness)).collect();
        assert_eq!(seen.len(), 256);
    }

    #[test]
    fn values_have_43_characters_of_base64url_and_a_seed_repeats_them() {
        let value = opaque(&Randomness::from_seed(3));
        assert_eq!(value.len(), 43);
        assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        assert_eq!(value, opaque(&Randomness::from_seed(3)));
        assert_ne!(value, opaque(&Randomness::from_seed(4)));
    }
}
