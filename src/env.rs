//! Every way out of the process: the API server, Bags, time, randomness, and tasks that must end.
//!
//! Both clients are `tower` services over HTTP requests, so that one fault layer serves both in tests.

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, Preconditions},
    core::Status,
    runtime::watcher,
};

use crate::{bags::BagsService, clock::Clock, clock::Randomness, saves::Saves};

/// A request to the API server is given up after this; the outcome of a write is then unknown, and the object is read
/// again.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// Every way out of the process.
#[derive(Clone)]
pub struct Env {
    /// The API server, for requests: no retries of its own.
    pub kube: Client,
    /// The Bags service.
    pub bags: BagsService,
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub randomness: Randomness,
    /// Creations under way, which nothing may cancel.
    pub saves: Saves,
}

/// A request to the API server that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer within this time; a write may have been applied.
    #[error("no answer from the API server in {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The API server refused, or could not be reached.
    #[error("{}", explain(.0))]
    Kube(Box<kube::Error>),
}

impl CallError {
    /// The API server's status code, where it answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Timeout(_) => None,
        }
    }

    /// The kind of failure, without the API server's message: that of an admission policy may quote the request, and the
    /// request may hold a value.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Kube(error) => kind(error),
            Self::Timeout(_) => self.to_string(),
        }
    }

    /// Another writer was first, or the object exists already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The operator has no right to do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The API server understood and said no: asking again as it is will not help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 405 | 413 | 422))
    }
}

/// What kind of failure a watch or its initial list met, without the error's own text: that of a decoding error may quote
/// the object.
#[must_use]
pub fn kind_of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("its list: {}", kind(error)),
        watcher::Error::WatchStartFailed(error) => format!("its beginning: {}", kind(error)),
        watcher::Error::WatchFailed(error) => format!("on its way: {}", kind(error)),
        watcher::Error::WatchError(status) => {
            format!("the API server ended it: {} {}", status.code, status.reason)
        }
        watcher::Error::NoResourceVersion => "an object without a version".to_owned(),
    }
}

fn kind(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
        kube::Error::SerdeError(_) => "an answer that cannot be read".to_owned(),
        _ => "the API server could not be reached".to_owned(),
    }
}

/// Parameters that delete exactly this version of an object: one that was changed since may belong to somebody else by now.
pub(crate) fn only(read: &ObjectMeta) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: read.uid.clone(),
            resource_version: read.resource_version.clone(),
        }),
        ..DeleteParams::default()
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The API server's own message, without the debug output that kube's `Display` adds to it.
pub(crate) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// An object's resourceVersion as a number, to tell which of two versions of the same object is newer. Resource versions
/// are comparable as numbers (KEP-5504); one that is not a number counts as oldest, so that the worst that follows is a
/// conflict and a live read.
#[must_use]
pub fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Sends a request to the API server, within its deadline.
///
/// # Errors
/// See [`CallError`].
pub async fn call<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    call_within(CALL_DEADLINE, request).await
}

/// Sends a request about Secrets that may hold values, within its deadline. Of a refusal only code and reason are kept: a
/// policy's message may quote the request or the stored object, and the code that reports an error need not know which
/// request it came from.
///
/// # Errors
/// See [`CallError`].
pub async fn call_with_values<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    call(async { request.await.map_err(without_words) }).await
}

fn without_words(error: kube::Error) -> kube::Error {
    match error {
        kube::Error::Api(status) => {
            let words = format!("{} {}", status.code, status.reason);
            kube::Error::Api(Status::failure(&words, &status.reason).with_code(status.code).boxed())
        }
        kube::Error::SerdeError(_) => {
            kube::Error::SerdeError(serde::de::Error::custom("an answer that cannot be read"))
        }
        other => other,
    }
}

/// Sends a request to the API server, within a deadline of its own.
///
/// # Errors
/// See [`CallError`].
pub async fn call_within<T>(
    deadline: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::Kube(Box::new(error))),
        Err(_) => Err(CallError::Timeout(deadline)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_refused_request_about_values_nothing_but_code_and_reason_is_kept() {
        let words = "policy no-secrets: data was value-one-for-tests";
        let refused = || kube::Error::Api(Status::failure(words, "Invalid").with_code(422).boxed());
        let error = call_with_values(async { Err::<(), _>(refused()) }).await.unwrap_err();
        assert_eq!((error.to_string(), error.is_refusal()), ("422 Invalid".to_owned(), true));
        let unreadable =
            || kube::Error::SerdeError(serde_json::from_str::<u8>("\"value-one-for-tests\"").unwrap_err());
        assert!(unreadable().to_string().contains("value-one"), "its words would quote it");
        let unread = call_with_values(async { Err::<(), _>(unreadable()) }).await.unwrap_err();
        for error in [error, unread] {
            assert!(!format!("{error} {error:?}").contains("value-one"), "{error:?}");
        }
    }
}
