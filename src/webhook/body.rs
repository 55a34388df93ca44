//! The bodies of reviews, while they arrive: however many come, fast or slow, together they hold a bounded amount of
//! memory, and a short body never waits for others.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// The longest review, in bytes: it carries an ApiKey, whose annotations and managedFields are bounded by the API server.
const LONGEST: usize = 1024 * 1024;
/// This much of any body is taken in without a share of the room; what people write is shorter. As each connection carries
/// one body at a time, the number of connections bounds the total.
const SHORT: usize = 16 * 1024;
/// The room, in bytes: what the parts of all bodies beyond [`SHORT`] share.
const ROOM: usize = 32 * 1024 * 1024;
/// How long a body may take to arrive: the API server sends it at once.
const DEADLINE: Duration = Duration::from_secs(1);

/// Takes bodies in.
pub(super) struct Bodies {
    room: Semaphore,
}

/// A body that has arrived. Its share of the room is freed when it is dropped.
#[derive(Default)]
pub(super) struct Arrived<'a> {
    pub(super) bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

/// Why a body was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is longer than any review.
    TooLong,
    /// It was not there in time, or ended early.
    TooLate,
    /// Others hold all of the room.
    NoRoom,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self { room: Semaphore::new(ROOM) }
    }

    /// The whole body.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(super) async fn read(&self, body: Body) -> Result<Arrived<'_>, Missing> {
        timeout(DEADLINE, self.collect(body)).await.unwrap_or(Err(Missing::TooLate))
    }

    /// Copies each piece into one buffer: one-byte pieces, kept as they are, would take forty times their length.
    async fn collect(&self, mut body: Body) -> Result<Arrived<'_>, Missing> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut arrived = Arrived::default();
        if announced > LONGEST {
            return Err(Missing::TooLong);
        }
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Missing::TooLate)?.into_data() else { continue };
            let length = arrived.bytes.len().saturating_add(data.len());
            if length > LONGEST {
                return Err(Missing::TooLong);
            }
            self.make_room(&mut arrived, length)?;
            arrived.bytes.extend_from_slice(&data);
        }
        Ok(arrived)
    }

    fn make_room<'a>(&'a self, arrived: &mut Arrived<'a>, length: usize) -> Result<(), Missing> {
        let held = arrived.room.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = length.saturating_sub(SHORT).saturating_sub(held);
        let more = u32::try_from(more).map_err(|_| Missing::TooLong)?;
        let more = self.room.try_acquire_many(more).map_err(|_| Missing::NoRoom)?;
        match &mut arrived.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt, future::join_all, stream};

    use super::*;

    /// A body in pieces of this length each.
    fn pieces(length: usize, count: usize) -> Body {
        Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(vec![b'x'; length])).take(count))
    }

    /// A body whose first bytes arrive, and no more.
    fn slow(length: usize) -> Body {
        let first = stream::once(async move { Ok::<_, Infallible>(vec![b'x'; length]) });
        Body::from_stream(first.chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_taken_in_whole_or_told_why_not() {
        let bodies = Bodies::new();
        for (what, body, expected) in [
            ("nothing", Body::empty(), Ok(0)),
            ("a short one", pieces(100, 1), Ok(100)),
            ("in bytes", pieces(1, 100_000), Ok(100_000)),
            ("the longest", pieces(1024, 1024), Ok(LONGEST)),
            ("a byte more", pieces(LONGEST + 1, 1), Err(Missing::TooLong)),
            ("more, in pieces", pieces(1024, 1025), Err(Missing::TooLong)),
            ("more, as announced", Body::from(vec![b'x'; LONGEST + 1]), Err(Missing::TooLong)),
            ("one that never ends", slow(1), Err(Missing::TooLate)),
        ] {
            assert_eq!(bodies.read(body).await.map(|arrived| arrived.bytes.len()), expected, "{what}");
        }
        assert_eq!(bodies.room.available_permits(), ROOM, "all room is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_body_waits_for_nobody_and_a_long_one_is_told_where_there_is_no_room() {
        let bodies = Bodies::new();
        let many = join_all((0..100).map(|_| bodies.read(slow(LONGEST - 1))));
        let honest = async {
            tokio::task::yield_now().await;
            let short = bodies.read(pieces(SHORT, 1)).await.map(|arrived| arrived.bytes.len());
            (short, bodies.read(pieces(SHORT, 60)).await.map(|arrived| arrived.bytes.len()))
        };
        let (slow, (short, long)) = tokio::join!(many, honest);
        assert_eq!((short, long), (Ok(SHORT), Err(Missing::NoRoom)));
        let held = slow.iter().filter(|slow| matches!(slow, Err(Missing::TooLate))).count();
        assert!((30..=34).contains(&held), "{held} were waited for");
        assert!(bodies.read(pieces(SHORT, 60)).await.is_ok(), "the room is free again");
    }
}
