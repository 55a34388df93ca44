//! Applications that call Bags with the keys that they hold: directly, not through the gate.

use axum::body::Body;
use bags_operator::clock::Clock;
use http::{Request, StatusCode};
use tower::ServiceExt;

use super::Run;
use crate::cluster::{Happened, Held};

impl Run<'_> {
    /// Controllers, kubelets and applications do what is due. Whether something happened.
    pub(super) async fn cluster_goes_on(&mut self) -> bool {
        let Happened { notes, calls } = self.scene.cluster.step();
        let happened = !notes.is_empty();
        for note in notes {
            self.trace.note(|| format!("cluster: {note}"));
        }
        for held in calls {
            self.consumer_calls(&held).await;
        }
        happened
    }

    /// Every application that does not call seldom calls: before somebody looks when keys were used last. So a use is as
    /// recent as it would be if they called all the time, without a call for every minute of a day.
    pub(super) async fn all_consumers_call(&mut self) {
        for held in self.scene.cluster.callers() {
            self.consumer_calls(&held).await;
        }
    }

    async fn consumer_calls(&mut self, held: &Held) {
        let request = Request::get("/api/v1/auth/me").header("x-api-key", &held.value).body(Body::empty());
        let request = request.unwrap_or_else(|error| panic!("no request: {error}"));
        let Ok(response) = self.bags.clone().oneshot(request).await else { return };
        // Whom Bags suspends, it lets in with no key.
        if response.status() == StatusCode::UNAUTHORIZED && !self.scene.user_is_suspended() {
            self.oracle.consumer_refused(held);
        }
        // Who is not let in has not used the key, as far as Bags can tell.
        if response.status().is_success() {
            self.oracle.consumer_called(held, self.clock.wall());
        }
    }
}
