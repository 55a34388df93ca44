//! The webhook's HTTP: one route, and a bound on all that a sender may cost.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header::CONNECTION},
    response::{IntoResponse, Response},
    routing::post,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    admission::Admission,
    review::{Asked, read},
};
use crate::{
    metrics::{Metrics, ReviewOutcome},
    server::Limits,
};

/// Where reviews are sent.
const PATH: &str = "/admit";
/// A review may be so long: an ApiKey, whose annotations and field managers are bounded by the API server.
const BODY_BYTES: usize = 1024 * 1024;
/// A body may take so long to arrive: the API server sends it at once. Turn, body and decision together stay below the five
/// seconds that it waits (`timeoutSeconds`), so that no place is kept for somebody who was refused in the meantime.
const BODY_DEADLINE: Duration = Duration::from_secs(1);
/// Reviews that are read or judged at the same time; more wait.
const REVIEWS: usize = 128;
/// A review waits so long for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(1);

/// The API server keeps its connections for 90 s between two reviews; it must be the one that closes them, or a review that
/// is on its way at that moment is lost.
pub(super) const LIMITS: Limits = Limits {
    connections: 2048,
    first_request: Duration::from_secs(5),
    idle: Duration::from_mins(3),
    lifetime: Duration::from_hours(24),
    linger: Duration::from_secs(2),
};

struct Service {
    admission: Admission,
    metrics: Metrics,
    turns: Semaphore,
    stop: CancellationToken,
}

/// Everything that the webhook answers.
pub(super) fn router(admission: Admission, metrics: Metrics, stop: CancellationToken) -> Router {
    let service = Service { admission, metrics, turns: Semaphore::new(REVIEWS), stop };
    Router::new().route(PATH, post(admit)).with_state(Arc::new(service))
}

async fn admit(State(service): State<Arc<Service>>, body: Body) -> Response {
    let Ok(Ok(_turn)) = timeout(TURN_DEADLINE, service.turns.acquire()).await else {
        service.metrics.review(ReviewOutcome::Overloaded, None);
        return (StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once; try again in a moment\n")
            .into_response();
    };
    let begun = service.admission.now();
    let body = match timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            service.metrics.review(ReviewOutcome::Unreadable, None);
            return (StatusCode::PAYLOAD_TOO_LARGE, "a review has 1 MiB at most\n").into_response();
        }
        Ok(Err(_)) | Err(_) => {
            service.metrics.review(ReviewOutcome::Unreadable, None);
            return (StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time\n").into_response();
        }
    };
    let question = read(&body);
    // Whoever waits for a decision holds no more than what is judged.
    drop(body);
    let (review, outcome) = match question {
        Err(unreadable) => (unreadable.deny(), ReviewOutcome::Unreadable),
        Ok(question) => match &question.asked {
            Asked::Other => (question.admit(Vec::new()), ReviewOutcome::NotJudged),
            Asked::Create { key, dry_run } => match service.admission.decide((**key).clone(), *dry_run).await
            {
                Ok(warnings) => (question.admit(warnings), ReviewOutcome::Admitted),
                Err(denial) => (question.deny(&denial), ReviewOutcome::Denied(denial.reason)),
            },
        },
    };
    let took = service.admission.now().saturating_duration_since(begun);
    service.metrics.review(outcome, Some(took));
    let mut response = Json(review).into_response();
    if service.stop.is_cancelled() {
        // Whoever asks next should ask another replica.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
