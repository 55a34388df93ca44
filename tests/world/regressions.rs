//! What the world has found, or should have: one run for each, named after what went wrong. They run with every share.

/// A run that went wrong once.
pub(crate) struct Regression {
    /// What must not happen again.
    pub(crate) name: &'static str,
    pub(crate) run: Run,
}

/// Which one it was.
pub(crate) enum Run {
    /// These faults in this workflow.
    Struck { workflow: &'static str, act_after: usize, strikes: &'static [&'static str] },
    /// A random run.
    Seed(u64),
}

/// All of them.
pub(crate) const ALL: &[Regression] = &[
    Regression {
        name: "a list that leaves no room for a licence is written down, and not asked for again without a pause",
        run: Run::Struck {
            workflow: "creation on an account that is full elsewhere",
            act_after: 6,
            strikes: &["1 patch bagsaccounts main #1 = done-no-answer"],
        },
    },
    Regression {
        name: "a consumer Secret that is made after its ApiKey went is removed again",
        run: Run::Struck {
            workflow: "deleted in the middle",
            act_after: 18,
            strikes: &["1 create secrets web #1 = freeze-before"],
        },
    },
    Regression {
        name: "the list of another user does not cover the account, although it shows a key that was made by mistake",
        run: Run::Struck {
            workflow: "credentials of another user in the middle",
            act_after: 9,
            strikes: &["1 bags sign attempt-1 #1 = crash-after"],
        },
    },
    Regression {
        name: "the word that nothing uses a key any more is not taken for its death",
        run: Run::Struck {
            workflow: "finalizer stripped in the middle",
            act_after: 17,
            strikes: &["1 bags me attempt-1 #2 = 401"],
        },
    },
    Regression {
        name: "a status is not written again for an ApiKey that was deleted and applied anew",
        run: Run::Struck {
            workflow: "deleted and applied again",
            act_after: 13,
            strikes: &["1 get namespaces shop #24 = lost"],
        },
    },
    Regression {
        name: "no finalizer is put on again for an ApiKey that was deleted and applied anew",
        run: Run::Struck {
            workflow: "deleted and applied again",
            act_after: 13,
            strikes: &["1 update bagsaccounts/status main #3 = freeze-before"],
        },
    },
    Regression {
        name: "a consumer Secret that is made after its ApiKey went is removed again, also where the first try fails",
        run: Run::Struck {
            workflow: "deleted in the middle",
            act_after: 14,
            strikes: &["1 create secrets web #1 = freeze-before", "1 delete secrets web #1 = lost"],
        },
    },
    Regression {
        name: "a consumer Secret that is made after its ApiKey went is removed again, also where nobody heard that it was made",
        run: Run::Struck {
            workflow: "deleted in the middle",
            act_after: 14,
            strikes: &[
                "1 update bagsaccounts/status main #5 = freeze-after",
                "1 create secrets web #1 = done-no-answer",
            ],
        },
    },
    Regression {
        name: "a status that lost a conflict is not sent again by the next run, although the watch is still behind",
        run: Run::Struck {
            workflow: "deleted in the middle",
            act_after: 14,
            strikes: &[
                "1 update bagsaccounts/status main #1 = dropped-watch",
                "1 update apikeys/status web #2 = lost",
            ],
        },
    },
    Regression {
        name: "a status that lost a conflict is not sent again where the read after the conflict fails as well",
        run: Run::Seed(12450),
    },
    Regression {
        name: "a process that stood still does not take a ledger that was lost meanwhile for the new one that it had seen",
        run: Run::Struck {
            workflow: "ledger lost some minutes later",
            act_after: 8,
            strikes: &[
                "1 update bagsaccounts/status main #1 = freeze-before",
                "2 list secrets #2 = crash-long",
            ],
        },
    },
    Regression {
        name: "a process that stood still does not write its status over that of another one",
        run: Run::Struck {
            workflow: "rotated, and pods that seldom call read their files again",
            act_after: 0,
            strikes: &["1 create secrets attempt-1 #1 = freeze-before"],
        },
    },
    Regression {
        name: "a key holds its use also where the watch of the replica that is asked has not shown its ApiKey",
        run: Run::Struck {
            workflow: "two come for one use, the second one when the first has its key",
            act_after: 1,
            strikes: &["2 admit apikeys api #1 = dropped-watch"],
        },
    },
    Regression {
        name: "lists of another user do not prove that a key of the former one is gone, whose value was lost",
        run: Run::Struck {
            workflow: "moved to another user of Bags",
            act_after: 22,
            strikes: &["1 bags create attempt-1 #1 = crash-after", "2 bags revoke attempt-1 #1 = 400"],
        },
    },
    Regression {
        name: "a ledger that is lost while a run of its account waits is put together from what there is by then",
        run: Run::Struck {
            workflow: "ledger lost in the middle",
            act_after: 14,
            strikes: &["1 patch bagsaccounts main #1 = done-no-answer"],
        },
    },
];
