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
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Admission, Answer},
    body::{Bodies, Missing},
    review::{Asked, read},
};
use crate::{
    api::ApiKey,
    metrics::{Metrics, ReviewOutcome},
    server::Limits,
};

/// Where reviews are sent.
pub(super) const PATH: &str = "/admit";
/// Reviews that are judged at the same time; more wait. Body, turn and decision together stay below the five seconds that
/// the API server waits (`timeoutSeconds`), so that no place is kept for an ApiKey whose review has timed out meanwhile.
const REVIEWS: usize = 128;
/// How long a review waits for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(1);

/// The API server keeps its connections for 90 s between two reviews; it must be the one that closes them, or a review that
/// is on its way at that moment is lost.
pub(super) const LIMITS: Limits = Limits {
    connections: 2048,
    first_request: Duration::from_secs(5),
    idle: Duration::from_mins(3),
    lifetime: Duration::from_hours(24),
};

struct Service {
    admission: Admission,
    metrics: Metrics,
    bodies: Bodies,
    turns: Semaphore,
    stop: CancellationToken,
}

/// Everything that the webhook answers.
pub(super) fn router(admission: Admission, metrics: Metrics, stop: CancellationToken) -> Router {
    let turns = Semaphore::new(REVIEWS);
    let service = Service { admission, metrics, bodies: Bodies::new(), turns, stop };
    Router::new().route(PATH, post(admit)).with_state(Arc::new(service))
}

async fn admit(State(service): State<Arc<Service>>, body: Body) -> Response {
    // A review that waits for its turn holds no more than what is judged, and a slow sender holds no turn.
    let question = match service.bodies.read(body).await {
        Ok(arrived) => read(&arrived.bytes),
        Err(missing) => return service.send_away(missing),
    };
    let begun = service.admission.now();
    let (review, outcome) = match question {
        Err(unreadable) => (unreadable.deny(), ReviewOutcome::Unreadable),
        Ok(question) => match &question.asked {
            Asked::Other => (question.admit(Vec::new()), ReviewOutcome::NotJudged),
            Asked::Create { key, dry_run } => match service.decide(key, *dry_run).await {
                None => return service.overloaded(),
                Some(Ok(warnings)) => (question.admit(warnings), ReviewOutcome::Admitted),
                Some(Err(denial)) => (question.deny(&denial), ReviewOutcome::Denied(denial.reason)),
            },
        },
    };
    let took = service.admission.now().saturating_duration_since(begun);
    service.metrics.review(outcome, Some(took));
    let mut response = Json(review).into_response();
    if service.stop.is_cancelled() {
        // The next review should go to another replica.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Service {
    /// What is said to a new ApiKey when its turn has come; `None`: it did not come in time.
    async fn decide(&self, key: &ApiKey, dry_run: bool) -> Option<Answer> {
        let _turn = timeout(TURN_DEADLINE, self.turns.acquire()).await.ok()?.ok()?;
        Some(self.admission.decide(key.clone(), dry_run).await)
    }

    fn send_away(&self, missing: Missing) -> Response {
        let (code, words) = match missing {
            Missing::NoRoom => return self.overloaded(),
            Missing::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "a review has 1 MiB at most\n"),
            Missing::TooLate => (StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time\n"),
        };
        self.metrics.review(ReviewOutcome::Unreadable, None);
        (code, words).into_response()
    }

    fn overloaded(&self) -> Response {
        self.metrics.review(ReviewOutcome::Overloaded, None);
        (StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once; try again in a moment\n").into_response()
    }
}
