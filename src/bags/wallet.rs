//! A Solana wallet: the Ed25519 key pair that is the account's login, and that can move its money.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

/// Secret and public half, 32 bytes each.
const PAIR: usize = 64;
/// A key pair in base58 has at most 88 characters, in a JSON array at most some 400; ten times that is no
/// wallet file, and base58 decoding is quadratic.
const LONGEST_TEXT: usize = 4096;

/// What a wallet field should hold; the end of every message.
macro_rules! expected {
    () => {
        "the field must hold a Solana key pair: the JSON array of 64 numbers that solana-keygen writes, or the base58 text of the same 64 bytes"
    };
}

/// A Solana key pair. Its secret half is wiped when dropped and in no output.
pub struct Wallet {
    /// Boxed, so that moving a wallet leaves no copies of the key behind.
    signing: Box<SigningKey>,
    address: String,
}

/// Why a text is not a wallet. No variant repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// Nothing but white space.
    #[error("failed to read the wallet: it is empty; {}", expected!())]
    Empty,
    /// Not text, or far too much of it.
    #[error("failed to read the wallet: it is not a short text; {}", expected!())]
    NotText,
    /// Words.
    #[error("failed to read the wallet: it looks like a seed phrase; {} (solana-keygen recover writes one from a phrase)", expected!())]
    SeedPhrase,
    /// An array with something else than 0 to 255 in it, or no array after all.
    #[error("failed to read the wallet: item {item} of its JSON array is not a number from 0 to 255; {}", expected!())]
    NotAByte {
        /// Its position, counted from 1.
        item: usize,
    },
    /// `[1, 2`
    #[error("failed to read the wallet: its JSON array has no end; {}", expected!())]
    OpenArray,
    /// A JSON object, PEM, hex with odd characters …
    #[error("failed to read the wallet: it is neither a JSON array nor base58; {}", expected!())]
    NotBase58,
    /// The public half alone, or the secret half alone.
    #[error("failed to read the wallet: it has {found} bytes instead of 64{}; {}", half(*.found), expected!())]
    Length {
        /// How many bytes there are.
        found: usize,
    },
    /// Two halves of different pairs, or damage.
    #[error("failed to read the wallet: its public half (the last 32 bytes) does not belong to its secret half (the first 32); {}", expected!())]
    Mismatch,
}

fn half(found: usize) -> &'static str {
    if found == PAIR / 2 { " (one half of a key pair, or only an address)" } else { "" }
}

impl Wallet {
    /// Reads a wallet in any of the usual forms: a JSON array of 64 numbers, base58, base58 in quotes; white
    /// space around it is ignored.
    ///
    /// # Errors
    /// A [`WalletError`] that says what is wrong and what the field must hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, WalletError> {
        let text = std::str::from_utf8(bytes).map_err(|_| WalletError::NotText)?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(WalletError::Empty);
        }
        if text.len() > LONGEST_TEXT {
            return Err(WalletError::NotText);
        }
        let pair = match text.strip_prefix('[') {
            Some(items) => from_array(items.strip_suffix(']').ok_or(WalletError::OpenArray)?)?,
            None => from_base58(text)?,
        };
        let signing = SigningKey::from_keypair_bytes(&pair).map_err(|_| WalletError::Mismatch)?;
        let address = bs58::encode(signing.verifying_key().as_bytes()).into_string();
        Ok(Self { signing: Box::new(signing), address })
    }

    /// The public key in base58: what the service knows the account by.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The public key.
    pub(super) fn public_key(&self) -> [u8; PAIR / 2] {
        self.signing.verifying_key().to_bytes()
    }

    /// The signature over the message, in base58.
    pub(super) fn sign(&self, message: &[u8]) -> Zeroizing<String> {
        Zeroizing::new(bs58::encode(self.signing.sign(message).to_bytes()).into_string())
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Wallet({}, [redacted])", self.address)
    }
}

/// Read by hand: a JSON parser's messages quote what they stumble over, its vectors leave copies behind.
fn from_array(items: &str) -> Result<Zeroizing<[u8; PAIR]>, WalletError> {
    let mut pair = Zeroizing::new([0; PAIR]);
    if items.trim().is_empty() {
        return Err(WalletError::Length { found: 0 });
    }
    let mut found = 0;
    for item in items.split(',') {
        let item = item.trim();
        let digits = item.bytes().all(|byte| byte.is_ascii_digit());
        let byte = item.parse().ok().filter(|_| digits).ok_or(WalletError::NotAByte { item: found + 1 })?;
        if let Some(place) = pair.get_mut(found) {
            *place = byte;
        }
        found += 1;
    }
    if found == PAIR { Ok(pair) } else { Err(WalletError::Length { found }) }
}

fn from_base58(text: &str) -> Result<Zeroizing<[u8; PAIR]>, WalletError> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    if text.split_whitespace().count() >= 12 {
        return Err(WalletError::SeedPhrase);
    }
    let mut bytes = Zeroizing::new([0; LONGEST_TEXT]);
    let found = bs58::decode(text).onto(&mut bytes[..]).map_err(|_| WalletError::NotBase58)?;
    if found != PAIR {
        return Err(WalletError::Length { found });
    }
    let mut pair = Zeroizing::new([0; PAIR]);
    pair.copy_from_slice(&bytes[..PAIR]);
    Ok(pair)
}

#[cfg(test)]
pub(super) mod tests {
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};

    use super::*;

    /// The secret half of the tests' wallet: 1, 2, 3 …, no secret to anybody.
    pub(in crate::bags) fn pair() -> [u8; 64] {
        SigningKey::from_bytes(&std::array::from_fn(|index| index as u8 + 1)).to_keypair_bytes()
    }

    fn array(pair: &[u8]) -> String {
        format!("[{}]", pair.iter().map(u8::to_string).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn every_usual_form_gives_the_same_wallet() {
        let base58 = bs58::encode(pair()).into_string();
        let address = bs58::encode(&pair()[32..]).into_string();
        let forms = [
            array(&pair()),
            format!("\n{}\n", array(&pair()).replace(',', ",\n  ")),
            format!("[ {} ]\r\n", array(&pair()).trim_matches(['[', ']'])),
            base58.clone(),
            format!("  {base58}\n"),
            format!("\"{base58}\"\n"),
            format!("\u{feff}{base58}"),
        ];
        for form in forms {
            assert_eq!(Wallet::parse(form.as_bytes()).unwrap().address(), address, "{form}");
        }
    }

    #[test]
    fn what_is_no_wallet_is_refused_with_its_own_reason() {
        let base58 = |bytes: &[u8]| bs58::encode(bytes).into_string();
        let mut mixed = pair();
        mixed[40] ^= 1;
        let cases = [
            ("", WalletError::Empty),
            (" \n", WalletError::Empty),
            (&"1".repeat(5000), WalletError::NotText),
            ("[]", WalletError::Length { found: 0 }),
            ("[1,2,3]", WalletError::Length { found: 3 }),
            (&array(&[pair().as_slice(), &[1]].concat()), WalletError::Length { found: 65 }),
            ("[1,2,256]", WalletError::NotAByte { item: 3 }),
            ("[1,-2]", WalletError::NotAByte { item: 2 }),
            ("[+1]", WalletError::NotAByte { item: 1 }),
            ("[1,]", WalletError::NotAByte { item: 2 }),
            ("[1.0]", WalletError::NotAByte { item: 1 }),
            ("[\"1\"]", WalletError::NotAByte { item: 1 }),
            ("[1,2", WalletError::OpenArray),
            (&base58(&pair()[..32]), WalletError::Length { found: 32 }),
            (&base58(&[pair().as_slice(), &[1]].concat()), WalletError::Length { found: 65 }),
            ("{\"wallet\": 1}", WalletError::NotBase58),
            ("0OIl", WalletError::NotBase58),
            (&["word"; 12].join(" "), WalletError::SeedPhrase),
            (&array(&mixed), WalletError::Mismatch),
            (&base58(&mixed), WalletError::Mismatch),
        ];
        for (text, expected) in cases {
            assert_eq!(Wallet::parse(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        assert_eq!(Wallet::parse(b"\xff\xfe").unwrap_err(), WalletError::NotText);
    }

    #[test]
    fn every_message_says_what_the_field_must_hold() {
        for error in [WalletError::Empty, WalletError::Length { found: 32 }, WalletError::Mismatch] {
            assert!(error.to_string().contains("JSON array of 64 numbers"), "{error}");
        }
        assert!(WalletError::Length { found: 32 }.to_string().contains("one half of a key pair"));
        assert!(!WalletError::Length { found: 31 }.to_string().contains("one half"));
    }

    #[test]
    fn a_signature_is_that_of_the_bytes() {
        let wallet = Wallet::parse(array(&pair()).as_bytes()).unwrap();
        let signature = bs58::decode(wallet.sign(b"message").as_bytes()).into_vec().unwrap();
        let key = VerifyingKey::from_bytes(&wallet.public_key()).unwrap();
        key.verify(b"message", &Signature::from_slice(&signature).unwrap()).unwrap();
    }

    #[test]
    fn debug_shows_the_address_only() {
        let wallet = Wallet::parse(array(&pair()).as_bytes()).unwrap();
        assert_eq!(format!("{wallet:?}"), format!("Wallet({}, [redacted])", wallet.address()));
    }
}
