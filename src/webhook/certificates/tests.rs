use jiff::SignedDuration;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const LIVES: Lives = Lives {
    authority: Duration::from_hours(24 * 365),
    leaf: Duration::from_hours(24 * 7),
    settle: Duration::from_mins(5),
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn before(time: Timestamp, wait: Duration) -> Timestamp {
    time - SignedDuration::try_from(wait).unwrap()
}

fn hosts() -> Vec<String> {
    vec!["bags-operator.bags-system.svc".into(), "127.0.0.1".into()]
}

/// Whether a caller with this bundle and this clock takes the leaf for that host.
fn accepts(bundle: &str, leaf: &Leaf, host: &str, at: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap()));
    let host = ServerName::try_from(host.to_owned()).unwrap();
    verifier.verify_server_cert(&leaf.certified.cert[0], &[], &host, &[], time).is_ok()
}

#[test]
fn a_leaf_is_trusted_for_its_hosts_also_by_whose_clock_is_late_and_by_nobody_after_its_end() {
    let authorities = Authorities::new(now(), &LIVES).unwrap();
    let leaf = authorities.signing().issue(&hosts(), now(), LIVES.leaf).unwrap();
    let bundle = authorities.bundle();
    for host in ["bags-operator.bags-system.svc", "127.0.0.1"] {
        assert!(accepts(&bundle, &leaf, host, now()), "{host}");
    }
    assert!(!accepts(&bundle, &leaf, "bags-operator.elsewhere.svc", now()));
    assert!(accepts(&bundle, &leaf, "127.0.0.1", before(now(), 30 * MINUTE)));
    assert!(!accepts(&bundle, &leaf, "127.0.0.1", later(now(), LIVES.leaf + MINUTE)));
    let stranger = Authorities::new(now(), &LIVES).unwrap().bundle();
    assert!(!accepts(&stranger, &leaf, "127.0.0.1", now()));
}

#[test]
fn a_leaf_is_renewed_with_a_third_of_its_life_left_and_when_another_authority_signs() {
    let authority = Authority::new(now(), LIVES.authority).unwrap();
    let leaf = authority.issue(&hosts(), now(), 30 * MINUTE).unwrap();
    assert_eq!(leaf.due(&authority, now()), 20 * MINUTE);
    assert_eq!(leaf.due(&authority, later(now(), 20 * MINUTE)), Duration::ZERO);
    assert_eq!(leaf.due(&Authority::new(now(), LIVES.authority).unwrap(), now()), Duration::ZERO);
}

#[test]
fn what_was_signed_while_the_clock_was_ahead_is_taken_at_once_and_replaced_at_once() {
    let ahead = later(now(), Duration::from_hours(8));
    let authorities = Authorities::new(ahead, &LIVES).unwrap();
    let leaf = authorities.signing().issue(&hosts(), ahead, LIVES.leaf).unwrap();
    assert!(accepts(&authorities.bundle(), &leaf, "127.0.0.1", now()));
    assert_eq!(leaf.due(authorities.signing(), now()), Duration::ZERO);
    let next = authorities.signing().issue(&hosts(), now(), LIVES.leaf).unwrap();
    assert!(accepts(&authorities.bundle(), &next, "127.0.0.1", now()));
    assert!(!next.due(authorities.signing(), now()).is_zero(), "once");
}

#[test]
fn a_replacement_that_began_while_the_clock_was_ahead_does_not_wait_for_that_time() {
    let first = Authorities::new(now(), &LIVES).unwrap();
    let ahead = later(now(), LIVES.authority * 3 / 4);
    let Step::Write(second) = first.step(ahead, &LIVES, LIVES.settle).unwrap() else {
        panic!("no successor")
    };
    let early = second.step(now(), &LIVES, MINUTE).unwrap();
    assert!(matches!(early, Step::Wait(wait) if wait == 4 * MINUTE), "{early:?}");
    assert!(matches!(second.step(now(), &LIVES, LIVES.settle).unwrap(), Step::Write(_)));
}

#[test]
fn a_leaf_ends_no_later_than_its_authority() {
    let authority = Authority::new(now(), 10 * MINUTE).unwrap();
    assert_eq!(authority.issue(&hosts(), now(), LIVES.leaf).unwrap().ends(), later(now(), 10 * MINUTE));
}

#[test]
fn authorities_come_back_from_their_secret_as_they_went_in() {
    let first = Authorities::new(now(), &LIVES).unwrap();
    let successor = Authority::new(now(), LIVES.authority).unwrap();
    let previous = Some(Authority::new(now(), LIVES.authority).unwrap().certificate);
    let full = Authorities { next: Some(successor), previous, ..first.clone() };
    for authorities in [first, full] {
        let mut secret = Secret::default();
        authorities.put_into(&mut secret);
        assert_eq!(Authorities::of(&secret).as_ref(), Some(&authorities));
        // Somebody took the annotations away: whoever is trusted stays so, and settles anew.
        secret.metadata.annotations = None;
        let bare = Authorities::of(&secret).unwrap();
        assert_eq!(
            (&bare.current, &bare.next, &bare.previous),
            (&authorities.current, &authorities.next, &authorities.previous)
        );
        if bare.next.is_some() || bare.previous.is_some() {
            let half = later(now(), LIVES.authority / 2);
            assert!(
                matches!(bare.step(half, &LIVES, MINUTE), Ok(Step::Wait(wait)) if wait == LIVES.settle - MINUTE)
            );
        }
    }
}

#[test]
fn what_cannot_sign_is_no_authority() {
    let mut secret = Secret::default();
    assert_eq!(Authorities::of(&secret), None, "nothing at all");
    let authorities = Authorities::new(now(), &LIVES).unwrap();
    authorities.put_into(&mut secret);
    assert_eq!(Authorities::of(&secret).as_ref(), Some(&authorities));
    let stranger = Authority::new(now(), LIVES.authority).unwrap();
    let own_key = KeyPair::from_pem(&authorities.current.key).unwrap();
    let leaf = CertificateParams::new(hosts()).unwrap().self_signed(&own_key).unwrap().pem();
    for (what, field, content) in [
        ("no key", CURRENT.1, ""),
        ("half a certificate", CURRENT.0, "-----BEGIN CERTIFICATE-----\nAAAA"),
        ("no text", CURRENT.0, "\u{0}"),
        ("another one's key", CURRENT.1, &stranger.key),
        ("another one's certificate", CURRENT.0, &stranger.certificate),
        ("a certificate of its key that is no authority's", CURRENT.0, &leaf),
    ] {
        let mut broken = secret.clone();
        broken.data.as_mut().unwrap().insert(field.to_owned(), ByteString(content.as_bytes().to_vec()));
        assert_eq!(Authorities::of(&broken), None, "{what}");
    }
    // A successor that cannot sign is none: the next step makes another.
    secret.data.as_mut().unwrap().insert(NEXT.0.to_owned(), ByteString(stranger.certificate.into_bytes()));
    assert!(Authorities::of(&secret).is_some_and(|authorities| authorities.next.is_none()));
}

/// Replaces the authority from its first day on, as replicas do: one that is the last to look, one that is the first.
#[test]
fn at_every_moment_of_a_replacement_whoever_calls_trusts_whoever_answers() {
    let mut authorities = Authorities::new(now(), &LIVES).unwrap();
    let (mut at, mut bundles, mut signers) = (now(), vec![authorities.bundle()], 1);
    let mut leaf = authorities.signing().issue(&hosts(), at, LIVES.leaf).unwrap();
    let end = later(now(), LIVES.authority * 3);
    let mut trusted = at;
    while at < end {
        let wait = match authorities.step(at, &LIVES, until(trusted, at)).unwrap() {
            Step::Wait(wait) => wait.min(leaf.due(authorities.signing(), at)),
            Step::Write(next) => {
                // Callers that have not heard of it still have the bundle before this one.
                bundles = vec![authorities.bundle(), next.bundle()];
                trusted = at;
                signers += usize::from(next.signing() != authorities.signing());
                authorities = next;
                Duration::ZERO
            }
        };
        // A replica that has not looked yet still answers with the leaf from before.
        let before = leaf;
        leaf = before_or_new(&authorities, before, at, &bundles);
        at = later(at, wait.max(Duration::from_secs(1)));
        if until(trusted, at) >= LIVES.settle {
            bundles = vec![authorities.bundle()];
        }
    }
    assert!(signers >= 4, "only {signers} authorities signed in three lives of one");
}

fn before_or_new(authorities: &Authorities, leaf: Leaf, at: Timestamp, bundles: &[String]) -> Leaf {
    for bundle in bundles {
        assert!(accepts(bundle, &leaf, "127.0.0.1", at), "the leaf from before is not trusted at {at}");
    }
    if !leaf.due(authorities.signing(), at).is_zero() {
        return leaf;
    }
    let leaf = authorities.signing().issue(&hosts(), at, LIVES.leaf).unwrap();
    for bundle in bundles {
        assert!(accepts(bundle, &leaf, "127.0.0.1", at), "the new leaf is not trusted at {at}");
    }
    leaf
}

#[test]
fn no_step_is_taken_before_the_last_one_is_known_to_all() {
    let first = Authorities::new(now(), &LIVES).unwrap();
    let late = later(now(), LIVES.authority * 3 / 4);
    let Step::Write(second) = first.step(late, &LIVES, LIVES.settle).unwrap() else { panic!("no successor") };
    let long = later(late, 10 * MINUTE);
    assert!(matches!(second.step(long, &LIVES, MINUTE).unwrap(), Step::Wait(wait) if wait == 4 * MINUTE));
    let Step::Write(third) = second.step(long, &LIVES, LIVES.settle).unwrap() else { panic!("not promoted") };
    assert_ne!(third.signing(), first.signing());
    assert!(third.bundle().contains(&first.current.certificate));
}

#[test]
fn an_authority_that_ended_while_nobody_looked_is_replaced_at_once() {
    let first = Authorities::new(now(), &LIVES).unwrap();
    let late = later(now(), LIVES.authority + MINUTE);
    let Step::Write(next) = first.step(late, &LIVES, Duration::ZERO).unwrap() else { panic!("not replaced") };
    let leaf = next.signing().issue(&hosts(), late, LIVES.leaf).unwrap();
    assert!(accepts(&next.bundle(), &leaf, "127.0.0.1", late));
}

#[test]
fn a_bundle_of_ours_is_told_from_somebody_elses() {
    let ours = Authorities::new(now(), &LIVES).unwrap().bundle();
    assert!(is_ours(ours.as_bytes()));
    let key = KeyPair::generate().unwrap();
    let theirs =
        CertificateParams::new(vec!["cert-manager".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    assert!(!is_ours(theirs.as_bytes()));
    assert!(is_ours(format!("{theirs}{ours}").as_bytes()));
    assert!(!is_ours(b"") && !is_ours(b"no PEM at all"));
}

#[test]
fn no_key_is_in_what_can_be_printed() {
    let authorities = Authorities::new(now(), &LIVES).unwrap();
    assert!(!format!("{authorities:?}").contains("PRIVATE"));
    assert!(!authorities.bundle().contains("PRIVATE"));
}
