//! Arbitrary bytes: nothing panics, nothing is taken for what it is not, and nothing of it is repeated.

use proptest::{prelude::*, sample::Index, sample::select};

use super::*;

mod answers;
mod bodies;
mod credentials;
mod limits;

/// A value that the service sends along. Longer than any word that is shown, so that nothing of it may be.
const PLANTED: &str = "planted-value-for-tests-AbCdEfGh";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// What a success of any operation comes to.
#[derive(Debug)]
enum Done {
    Challenged(Challenge),
    Made(CreatedKey),
    Listed(KeyList),
    Probed(Probe),
    Revoked(Revocation),
    Pong,
}

/// Does the operation once, with the wallet way's code at hand.
async fn ask(client: &BagsClient, operation: Operation) -> Result<Done, Error> {
    const NAME: &str = "Web-Shop-x-y";
    match operation {
        Operation::Challenge => client.challenge(&wallet()).await.map(Done::Challenged),
        Operation::CreateWithWallet => client
            .create_with_wallet(&wallet(), challenge(), Some(&totp()), NAME, |_| true)
            .await
            .map(Done::Made),
        Operation::CreateWithToken => client.create_with_token(&token(), NAME).await.map(Done::Made),
        Operation::List => client.list(&token()).await.map(Done::Listed),
        Operation::Me => client.me(&key_value()).await.map(Done::Probed),
        Operation::Revoke => {
            client.revoke(&token(), "/agent/dev/keys/revoke", "key-1").await.map(Done::Revoked)
        }
        Operation::Ping => client.ping().await.map(|()| Done::Pong),
    }
}

/// What happens to bytes on their way, or in the hands of somebody who edits a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    Cut,
    Remove(usize),
    Insert(Vec<u8>),
    Repeat(usize),
}

fn any_damage() -> impl Strategy<Value = (Index, Damage)> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..6),
        select(vec!["\"", "\\", ",", "{", "]", " ", "\n", "\0", "null", "\\ud800", "\u{feff}", "=", "://"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let damage = prop_oneof![
        3 => (0..8_u8).prop_map(Damage::Flip),
        1 => Just(Damage::Cut),
        2 => (1..9_usize).prop_map(Damage::Remove),
        3 => bytes.prop_map(Damage::Insert),
        1 => (1..40_usize).prop_map(Damage::Repeat),
    ];
    (any::<Index>(), damage)
}

fn damaged(mut bytes: Vec<u8>, damages: Vec<(Index, Damage)>) -> Vec<u8> {
    for (place, damage) in damages {
        let at = place.index(bytes.len() + 1);
        let upto = |length: usize| (at + length).min(bytes.len());
        match damage {
            Damage::Flip(bit) if at < bytes.len() => bytes[at] ^= 1 << bit,
            Damage::Flip(_) => {}
            Damage::Cut => bytes.truncate(at),
            Damage::Remove(length) => drop(bytes.drain(at..upto(length))),
            Damage::Insert(more) => drop(bytes.splice(at..at, more)),
            Damage::Repeat(length) => {
                let piece = bytes[at..upto(length)].to_vec();
                drop(bytes.splice(at..at, piece));
            }
        }
    }
    bytes
}

/// No run of so many bytes of the text is shown.
fn hides(shown: &str, text: &[u8], run: usize) -> bool {
    !text.windows(run).any(|piece| shown.as_bytes().windows(run).any(|window| window == piece))
}

proptest! {
    #[test]
    fn an_address_that_is_accepted_stays_on_its_host(path in "[/a-z.%?#@:]{0,30}") {
        let base = BaseUrl::parse("https://bags.example/api/v1", false).unwrap();
        if let Some(uri) = base.join(&path) {
            prop_assert_eq!(uri.host(), Some("bags.example"));
            prop_assert!(uri.path().starts_with("/api/v1/") && uri.query().is_none());
        }
    }
}
