//! What can go wrong with one request, and how a run's faults are written down so that it can be had again.

use std::{fmt, str::FromStr, time::Duration};

/// Which way a request takes: one of the operator's two ways out, or its answer to who asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Seam {
    /// To the API server.
    Kube,
    /// To Bags.
    Bags,
    /// The webhook's answer to a review, on which the API server creates the object or refuses it.
    Review,
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal on [$($seam:ident)*];)+) => {
        /// What goes wrong with a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Whether it can happen to a request of this seam.
            pub(crate) fn happens_on(self, seam: Seam) -> bool {
                match self { $(Self::$name => [$(Seam::$seam),*].contains(&seam),)+ }
            }

            fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

faults! {
    /// The process dies; the request was never sent. It starts again two seconds later.
    CrashBefore = "crash-before" on [Kube Bags Review];
    /// The request has its effect, and the process dies before it reads the answer.
    CrashAfter = "crash-after" on [Kube Bags Review];
    /// Like `CrashAfter`, but the process stays away for ten minutes: longer than a creation waits for its judgement, also
    /// where five of them may be the difference of two clocks.
    CrashLong = "crash-long" on [Kube Bags Review];
    /// The request has its effect and is never answered: the caller's own deadline ends it.
    DoneNoAnswer = "done-no-answer" on [Kube Bags Review];
    /// The connection breaks; the request had no effect.
    Lost = "lost" on [Kube Bags Review];
    /// 409 without an effect.
    Conflict = "409" on [Kube Bags];
    /// 500 without an effect. For a review: another webhook or a quota refuses what this one has admitted.
    ServerError = "500" on [Kube Bags Review];
    /// The request has its effect, and the process stands still before it reads the answer. Another one takes over; it
    /// wakes up ten minutes later and goes on where it was.
    FreezeAfter = "freeze-after" on [Kube Bags Review];
    /// Like `FreezeAfter`, but nobody takes over before it goes on, as where there is one replica: what it had seen is older than
    /// anything that another one has done since.
    FreezeAlone = "freeze-alone" on [Kube Bags];
    /// The process stands still with the request on its tongue; it is sent ten minutes later, after another one took over.
    FreezeBefore = "freeze-before" on [Kube Bags Review];
    /// The caches stay as they are until three more writes have happened, for a minute at most.
    StaleReads = "stale-reads" on [Kube Review];
    /// The watches see nothing from here on; after a minute they begin anew with a list.
    DroppedWatch = "dropped-watch" on [Kube Review];
    /// 400 in the service's envelope, in words that nobody knows.
    BadRequest = "400" on [Bags];
    /// 401 in the service's envelope.
    Unauthorized = "401" on [Bags];
    /// 429 in the service's envelope; over in two minutes.
    RateLimited = "429" on [Bags];
    /// 503 of something in between.
    Unavailable = "503" on [Bags];
    /// The request has its effect; the answer is 500.
    DoneServerError = "done-500" on [Bags];
    /// The request has its effect; half of the answer arrives as if it were all.
    Malformed = "malformed" on [Bags];
    /// The request has its effect; the connection breaks in the middle of the answer.
    Truncated = "truncated" on [Bags];
    /// A revocation has no effect, and is answered as if it had.
    Pretended = "pretended" on [Bags];
    /// The request has its effect, and the answer comes, after the caller has given up.
    Slow = "slow" on [Bags];
    /// A write has its effect after the caller has given up: what a new look has not shown may still come.
    Late = "late" on [Kube];
}

/// How long a process is away after a crash.
pub(crate) const RESTART: Duration = Duration::from_secs(2);
/// How long it is away after a long one.
pub(crate) const LONG_RESTART: Duration = Duration::from_secs(600);
/// How long a process stands still.
pub(crate) const FREEZE: Duration = Duration::from_secs(600);
/// How late the effect of a slow request comes: after the 30 s that a request to Bags may take, and the 15 s to the API server.
pub(crate) const SLOW: Duration = Duration::from_secs(40);
/// How long a watch is blind, and the longest that a cache is behind.
pub(crate) const BLIND: Duration = Duration::from_secs(60);
/// How many writes a stale cache is behind.
pub(crate) const STALE_WRITES: u64 = 3;

impl Fault {
    /// Whether it can happen to such a request.
    pub(crate) fn happens_to(self, seam: Seam, what: &str) -> bool {
        let fits = match self {
            Self::Pretended => what.starts_with("bags revoke"),
            Self::Late => comes_late(what),
            _ => true,
        };
        self.happens_on(seam) && fits
    }

    /// Whether chance may choose it: seeds keep the runs that they had before these were known.
    pub(crate) fn is_by_chance(self) -> bool {
        !matches!(self, Self::FreezeAlone | Self::Pretended | Self::Late)
    }

    /// Whether the quick share of pairs has this fault: one of each kind that leaves another world behind. A crash before
    /// a request is one after the request before; a process that stands still before it sends a write is the worse one
    /// of two; a write that is lost changes as little as one that is refused, and tells as little as one that is never
    /// answered; an answer that says 500 is as good as none.
    pub(crate) fn is_one_of_its_kind(self, seam: Seam) -> bool {
        match self {
            Self::CrashAfter
            | Self::DoneNoAnswer
            | Self::FreezeBefore
            | Self::BadRequest
            | Self::RateLimited
            | Self::Slow => true,
            Self::Conflict => seam == Seam::Kube,
            Self::Lost | Self::FreezeAfter => seam == Seam::Bags,
            Self::ServerError => seam == Seam::Review,
            Self::CrashBefore
            | Self::CrashLong
            | Self::FreezeAlone
            | Self::Pretended
            | Self::Late
            | Self::StaleReads
            | Self::DroppedWatch
            | Self::Unauthorized
            | Self::Unavailable
            | Self::DoneServerError
            | Self::Malformed
            | Self::Truncated => false,
        }
    }
}

/// Whether a write may come late. Not a consumer's Secret that is made: it may stay behind when its ApiKey has gone meanwhile
/// (docs/residual-risks.md). Events say nothing that is relied on.
fn comes_late(what: &str) -> bool {
    let writes = ["create ", "update ", "patch ", "delete "].iter().any(|verb| what.starts_with(verb));
    let event = what.starts_with("create events");
    let consumer_secret = what.starts_with("create secrets") && !what.contains(" attempt-");
    writes && !event && !consumer_secret && !what.contains("(dry run)")
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|fault| fault.text()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().copied().find(|fault| fault.text() == text);
        found.ok_or_else(|| format!("no fault is called \"{text}\"; there are: {}", known()))
    }
}

/// The name of one request in a run: who sends what for whom, and for the how manieth time. Equal in a replay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Label {
    /// The process: the first one is 1, each restart or take-over one more.
    pub(crate) incarnation: u32,
    /// Verb and what it is about.
    pub(crate) what: String,
    /// 1 for the first such request of the incarnation.
    pub(crate) occurrence: u32,
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} #{}", self.incarnation, self.what, self.occurrence)
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is no label; one looks like \"1 update bagsaccounts/status main #2\"");
        let (incarnation, rest) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let (what, occurrence) = rest.rsplit_once(" #").ok_or_else(wrong)?;
        Ok(Self {
            incarnation: incarnation.parse().map_err(|_| wrong())?,
            what: what.to_owned(),
            occurrence: occurrence.parse().map_err(|_| wrong())?,
        })
    }
}

/// A fault at a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strike {
    pub(crate) label: Label,
    pub(crate) fault: Fault,
}

impl fmt::Display for Strike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} = {}", self.label, self.fault)
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no strike; one looks like \"1 list keys #1 = 500\"");
        let (label, fault) = text.rsplit_once(" = ").ok_or_else(wrong)?;
        Ok(Self { label: label.parse()?, fault: fault.trim().parse()? })
    }
}
