//! Certificates of the webhook: an authority of the operator's own, in one Secret, and leaves that each replica signs for
//! itself and keeps in memory. Pure but for randomness.
//!
//! An authority is replaced in three steps, with a pause after each, so that at every moment the API server trusts every
//! replica that answers: its successor is trusted beside it; then the successor signs; then the old authority is trusted no
//! more.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::pem::Pem;

use crate::time::{later, until};

/// Common name of every authority of ours.
const COMMON_NAME: &str = "bags-operator webhook authority";
/// Certificates are valid from the beginning of this year on, long before any of ours was made: clocks differ, and a
/// replica whose clock is hours ahead for a while must not sign a certificate that nobody accepts for hours.
const VALID_FROM: i32 = 2020;

/// Fields of the Secret.
const CURRENT: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("next.crt", "next.key");
const PREVIOUS: &str = "previous.crt";
/// Its annotation: when the last step was taken.
const STEPPED: &str = "keys.bags.fm/stepped";

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate library refused.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS library does not take the key.
    #[error("failed to use a certificate's key")]
    Use(#[source] rustls::Error),
    /// The key's PEM cannot be read.
    #[error("failed to read a certificate's key")]
    Pem(#[source] rustls::pki_types::pem::Error),
}

/// An authority: certificate and key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authority {
    certificate: String,
    key: String,
}

/// Without the key.
impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authority")
    }
}

/// How long certificates live, and how long everybody takes to learn of a new authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// Of an authority.
    pub authority: Duration,
    /// Of a leaf.
    pub leaf: Duration,
    /// Between two steps of a replacement.
    pub settle: Duration,
}

/// The authorities of an installation, as its Secret holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authorities {
    current: Authority,
    next: Option<Authority>,
    previous: Option<String>,
    stepped: Timestamp,
}

/// What is to be done about the authorities.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing before this much time has passed.
    Wait(Duration),
    /// Write these.
    Write(Authorities),
}

/// A serving certificate.
pub(super) struct Leaf {
    pub(super) certified: Arc<CertifiedKey>,
    issuer: String,
    made: Timestamp,
    ends: Timestamp,
}

impl Authority {
    pub(super) fn new(now: Timestamp, life: Duration) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, now, life);
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// A leaf for these names and addresses.
    pub(super) fn issue(
        &self,
        hosts: &[String],
        now: Timestamp,
        life: Duration,
    ) -> Result<Leaf, CertificateError> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, "bags-operator webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let life = life.min(until(now, self.ends()));
        validity(&mut params, now, life);
        let certificate = params.signed_by(&key, &issuer)?;
        let private =
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(CertificateError::Pem)?;
        let signing = any_supported_type(&private).map_err(CertificateError::Use)?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing));
        Ok(Leaf { certified, issuer: self.certificate.clone(), made: now, ends: later(now, life) })
    }

    /// From when to when it is valid; `None`: its certificate cannot be read.
    fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        let pem = Pem::iter_from_buffer(self.certificate.as_bytes()).next()?.ok()?;
        let validity = pem.parse_x509().ok()?.validity().clone();
        let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Some((time(validity.not_before)?, time(validity.not_after)?))
    }

    fn ends(&self) -> Timestamp {
        self.validity().map_or(Timestamp::MIN, |(_, ends)| ends)
    }

    /// Whether it can sign: certificate and key are readable and belong together, and the certificate is an authority's.
    /// The library would sign also with a key that does not match the certificate, and nobody would trust the leaf.
    fn signs(&self) -> bool {
        let Ok(key) = KeyPair::from_pem(&self.key) else { return false };
        self.validity().is_some()
            && self.certifies(key.public_key_raw()).unwrap_or(false)
            && Issuer::from_ca_cert_pem(&self.certificate, key).is_ok()
    }

    /// Whether its certificate is an authority's, and for this key; `None`: it cannot be read.
    fn certifies(&self, public_key: &[u8]) -> Option<bool> {
        let pem = Pem::iter_from_buffer(self.certificate.as_bytes()).next()?.ok()?;
        let certificate = pem.parse_x509().ok()?;
        Some(certificate.is_ca() && *certificate.public_key().subject_public_key.data == *public_key)
    }
}

impl Authorities {
    pub(super) fn new(now: Timestamp, lives: &Lives) -> Result<Self, CertificateError> {
        Ok(Self { current: Authority::new(now, lives.authority)?, next: None, previous: None, stepped: now })
    }

    /// New authorities, of a process that knows none yet. Authorities of ours that `bundle` trusts already stay trusted
    /// beside the new one: other replicas may serve leaves that those signed, and are able to put them back.
    pub(super) fn beside(bundle: &[u8], now: Timestamp, lives: &Lives) -> Result<Self, CertificateError> {
        let previous = std::str::from_utf8(bundle).ok().filter(|bundle| is_ours(bundle.as_bytes()));
        Ok(Self { previous: previous.map(str::to_owned), ..Self::new(now, lives)? })
    }

    /// The authorities in a Secret; `None`: it holds none that can sign.
    pub(super) fn of(secret: &Secret) -> Option<Self> {
        let text = |field: &str| {
            let bytes = &secret.data.as_ref()?.get(field)?.0;
            String::from_utf8(bytes.clone()).ok()
        };
        let authority = |(certificate, key): (&str, &str)| {
            let authority = Authority { certificate: text(certificate)?, key: text(key)? };
            authority.signs().then_some(authority)
        };
        Some(Self {
            current: authority(CURRENT)?,
            next: authority(NEXT),
            previous: text(PREVIOUS),
            // Without its annotation the time of the last step is unknown: like a step in the future, it has to settle
            // anew.
            stepped: secret
                .annotations()
                .get(STEPPED)
                .and_then(|at| at.parse().ok())
                .unwrap_or(Timestamp::MAX),
        })
    }

    /// Puts them into a Secret.
    pub(super) fn put_into(&self, secret: &mut Secret) {
        let text = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = BTreeMap::new();
        let authorities = [(CURRENT, Some(&self.current)), (NEXT, self.next.as_ref())];
        for ((certificate, key), authority) in authorities {
            if let Some(authority) = authority {
                data.insert(certificate.to_owned(), text(&authority.certificate));
                data.insert(key.to_owned(), text(&authority.key));
            }
        }
        if let Some(previous) = &self.previous {
            data.insert(PREVIOUS.to_owned(), text(previous));
        }
        secret.data = Some(data);
        secret.annotations_mut().insert(STEPPED.to_owned(), self.stepped.to_string());
    }

    /// The one that signs.
    pub(super) fn signing(&self) -> &Authority {
        &self.current
    }

    /// All that is to be trusted, as PEM.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        [Some(self.current.certificate.as_str()), next, self.previous.as_deref()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whether a leaf of the authority that signs is trusted by whoever trusts this bundle.
    pub(super) fn is_trusted_by(&self, bundle: &str) -> bool {
        bundle.contains(&self.current.certificate)
    }

    /// Whether these authorities are the others, or a step of a replacement before or after them, as far as a process can
    /// tell that may have missed a step.
    pub(super) fn is_step_of(&self, others: &Self) -> bool {
        let has = |of: &Self, one: &Authority| of.current == *one || of.next.as_ref() == Some(one);
        has(others, &self.current) || has(self, &others.current)
    }

    /// When the authority that signs ends: its leaves are trusted until then at most.
    pub(super) fn ends(&self) -> Timestamp {
        self.current.ends()
    }

    /// These authorities again, after a replica that had never seen them, or a restore, put others into their place that
    /// nobody trusts yet. If the others are newer, they become the successor, in three steps like any; older ones are
    /// dropped, as they were replaced for a reason.
    pub(super) fn put_back(&self, others: &Self, now: Timestamp, lives: &Lives) -> Self {
        let lasts = others.current.ends() > later(now, lives.settle.saturating_mul(3));
        let next = match others.stepped > self.stepped && lasts {
            true => Some(others.current.clone()),
            false => self.next.clone(),
        };
        Self { next, stepped: now, ..self.clone() }
    }

    /// The next step. `trusted` is for how long the API server has known the present bundle; a step that relies on this
    /// trust waits until it has settled.
    pub(super) fn step(
        &self,
        now: Timestamp,
        lives: &Lives,
        trusted: Duration,
    ) -> Result<Step, CertificateError> {
        let ends = self.current.ends();
        if ends <= now {
            // The authority has ended, and nobody trusts it any more: a new one is better at once, without the steps
            // between.
            return Ok(Step::Write(Self::new(now, lives)?));
        }
        // A step in the future was taken while the clock was ahead: its time is not waited for, and only `trusted` counts.
        let settled = if self.stepped > now { trusted } else { until(self.stepped, now).min(trusted) };
        let unsettled = lives.settle.saturating_sub(settled);
        if let Some(next) = &self.next {
            if !unsettled.is_zero() {
                return Ok(Step::Wait(unsettled));
            }
            let previous = Some(self.current.certificate.clone());
            return Ok(Step::Write(Self { current: next.clone(), next: None, previous, stepped: now }));
        }
        if self.previous.is_some() {
            if !unsettled.is_zero() {
                return Ok(Step::Wait(unsettled));
            }
            return Ok(Step::Write(Self { previous: None, stepped: now, ..self.clone() }));
        }
        let due = until(now, ends).saturating_sub(lives.authority / 3);
        if !due.is_zero() {
            return Ok(Step::Wait(due));
        }
        Ok(Step::Write(self.succeeded(now, lives)?))
    }

    /// The first step of a replacement: a successor is trusted beside the authority that signs. This is also how
    /// authorities are written again after their Secret was lost: replicas with leaves of theirs stay trusted, and somebody
    /// who deleted the Secret to be rid of an authority gets it replaced.
    pub(super) fn succeeded(&self, now: Timestamp, lives: &Lives) -> Result<Self, CertificateError> {
        let next = match &self.next {
            Some(next) => next.clone(),
            None => Authority::new(now, lives.authority)?,
        };
        Ok(Self { next: Some(next), stepped: now, ..self.clone() })
    }
}

impl Leaf {
    /// After how long the leaf is to be replaced, with a third of its life left; zero: now. A leaf made in the future was
    /// made while the clock was ahead, so nobody knows how much of its life is left: it is replaced now.
    pub(super) fn due(&self, authority: &Authority, now: Timestamp) -> Duration {
        if self.issuer != authority.certificate || now < self.made {
            return Duration::ZERO;
        }
        until(now, self.ends).saturating_sub(until(self.made, self.ends) / 3)
    }

    /// When it ends.
    pub(super) fn ends(&self) -> Timestamp {
        self.ends
    }
}

/// Whether a bundle holds an authority of ours, this one or an earlier one.
pub(super) fn is_ours(bundle: &[u8]) -> bool {
    let ours = |pem: Pem| {
        let certificate = pem.parse_x509().ok()?;
        let mut names = certificate.subject().iter_common_name();
        Some(names.any(|name| name.as_str().is_ok_and(|name| name == COMMON_NAME)))
    };
    Pem::iter_from_buffer(bundle).filter_map(Result::ok).any(|pem| ours(pem).unwrap_or(false))
}

/// Makes a certificate valid from [`VALID_FROM`] until `life` from now.
fn validity(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let time = |time: Timestamp| epoch + Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    params.not_before = rcgen::date_time_ymd(VALID_FROM, 1, 1);
    params.not_after = time(later(now, life));
}

#[cfg(test)]
mod tests;
