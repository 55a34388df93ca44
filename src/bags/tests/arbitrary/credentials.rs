//! Wallet files, TOTP secrets, agent tokens and key values: read or refused, at once, and never repeated.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::super::super::wallet::tests::pair;
use super::*;

const MEGABYTE: usize = 1024 * 1024;

/// What every reader says to these bytes, where it refuses them.
fn refusals(bytes: &[u8]) -> String {
    let mut said = String::new();
    let mut note = |refusal: Option<&dyn std::error::Error>| {
        said.extend(refusal.map(|refusal| format!("{refusal} {refusal:?} ")));
    };
    note(Wallet::parse(bytes).err().as_ref().map(|error| error as _));
    note(TotpSecret::parse(bytes).err().as_ref().map(|error| error as _));
    note(AgentToken::parse(bytes).err().as_ref().map(|error| error as _));
    note(KeyValue::parse(bytes).err().as_ref().map(|error| error as _));
    said
}

/// What is read is of use.
fn judge(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(wallet) = Wallet::parse(bytes) {
        prop_assert_eq!(bs58::decode(wallet.address()).into_vec().unwrap(), wallet.public_key());
    }
    if let Ok(secret) = TotpSecret::parse(bytes) {
        for at in [Timestamp::MIN, TestClock::new().wall(), Timestamp::MAX] {
            let code = secret.code(at);
            prop_assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()));
        }
    }
    if let Ok(token) = AgentToken::parse(bytes) {
        prop_assert_eq!(token.expose().as_bytes(), bytes.trim_ascii());
    }
    if let Ok(value) = KeyValue::parse(bytes) {
        prop_assert_eq!(value.expose().as_bytes(), bytes);
    }
    Ok(())
}

/// The tests' wallet in every form.
fn wallet_files() -> Vec<String> {
    let (array, base58) = (format!("{:?}", pair()), bs58::encode(pair()).into_string());
    vec![array.clone(), array.replace(' ', "\n"), format!("\"{base58}\"\n"), base58]
}

fn credential_files() -> Vec<String> {
    let jwt = ["{\"alg\":\"HS256\"}", "{\"exp\":1798761600}", "sig"]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let url =
        format!("otpauth://totp/Bags:person?secret={secret}&issuer=Bags&digits=6&period=30&algorithm=SHA1");
    [wallet_files(), vec![jwt, secret.to_owned(), url, PLANTED.to_owned()]].concat()
}

fn any_damages() -> impl Strategy<Value = Vec<(Index, Damage)>> {
    prop::collection::vec(any_damage(), 1..5)
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        judge(&bytes)?;
        prop_assert!(hides(&refusals(&bytes), &bytes, 8));
    }

    #[test]
    fn arbitrary_text_is_read_or_refused(
        text in "(otpauth://totp/)?[ -~]{0,100}|\\[[0-9, ]{0,300}\\]|[1-9A-Za-z.]{0,100}",
    ) {
        judge(text.as_bytes())?;
        drop(BaseUrl::parse(&text, true));
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_and_never_repeated(
        file in select(credential_files()),
        damages in any_damages(),
    ) {
        let bytes = damaged(file.into_bytes(), damages);
        judge(&bytes)?;
        // A message has the name of a URL's parameter, and how such a URL begins.
        let mut parts = bytes.split(|byte| b"?&=:/".contains(byte));
        let said = refusals(&bytes);
        prop_assert!(parts.all(|part| hides(&said, part, 12)), "{said}");
    }

    #[test]
    fn a_damaged_wallet_file_is_the_same_wallet_or_none(file in select(wallet_files()), damages in any_damages()) {
        let bytes = damaged(file.into_bytes(), damages);
        let address = Wallet::parse(&bytes).ok().map(|found| found.address().to_owned());
        prop_assert!(address.is_none_or(|address| address == wallet().address()));
    }

    #[test]
    fn every_key_pair_is_read_in_every_form(seed in any::<[u8; 32]>()) {
        let signing = ed25519_dalek::SigningKey::from_bytes(&seed);
        let pair = signing.to_keypair_bytes();
        let address = bs58::encode(signing.verifying_key().as_bytes()).into_string();
        for text in [format!("{pair:?}"), bs58::encode(pair).into_string()] {
            let wallet = Wallet::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(wallet.address(), &address);
        }
    }
}

/// Decoding a megabyte of base58 would take hours: that this ends shows that none of it is.
#[test]
fn a_megabyte_is_refused_by_its_length_alone() {
    let pieces = [
        "1",
        "z",
        "A",
        "[",
        "[1,",
        "1,",
        "=",
        "word ",
        "Bearer ",
        "otpauth://totp/x?secret=",
        "&a=b",
        "\u{e9}",
        "\"",
        "{",
    ];
    for piece in pieces {
        for ending in ["", "]", "\"", "&secret=GEZDGNBVGY3TQOJQ"] {
            let bytes = (piece.repeat(MEGABYTE / piece.len()) + ending).into_bytes();
            let wallet = Wallet::parse(&bytes).unwrap_err().to_string();
            assert!(wallet.contains("it is not a short text"), "{piece}: {wallet}");
            let totp = TotpSecret::parse(&bytes).unwrap_err().to_string();
            assert!(totp.contains("it is not a short text"), "{piece}: {totp}");
            let token = AgentToken::parse(&bytes).unwrap_err().to_string();
            assert!(token.contains("longer than 16384 bytes"), "{piece}: {token}");
            assert!(KeyValue::parse(&bytes).is_err());
        }
    }
}

#[test]
fn a_file_of_the_longest_size_that_is_looked_at_is_refused_as_well() {
    for piece in ["2", "z", "1,", "A", "a b ", "A-"] {
        for length in [1024, 4096, 16 * 1024] {
            let text = piece.repeat(length / piece.len());
            assert!(Wallet::parse(text.as_bytes()).is_err(), "{piece}");
            assert!(Wallet::parse(format!("[{}]", &text[2..]).as_bytes()).is_err(), "{piece}");
            judge(text.as_bytes()).unwrap();
        }
    }
}

#[test]
fn a_megabyte_of_white_space_hides_no_credential() {
    let around = |text: &str| format!("{}{text}{}", " \n".repeat(MEGABYTE / 2), "\t".repeat(MEGABYTE));
    assert_eq!(Wallet::parse(around(&wallet_files()[0]).as_bytes()).unwrap().address(), wallet().address());
    assert_eq!(AgentToken::parse(around(PLANTED).as_bytes()).unwrap().expose(), PLANTED);
    assert!(TotpSecret::parse(around("GEZDGNBVGY3TQOJQ").as_bytes()).is_ok());
    for empty in [refusals(around("").as_bytes()), refusals(b"")] {
        assert_eq!(empty.matches("it is empty").count(), 3, "{empty}");
    }
}
