//! Marks the keystore Secrets of keys that are left to people.

use crate::{apikey::problem::Problem, context::Context, ledger::Change};

/// Before the ledger says so: where that is lost, the mark alone tells such a key from one whose ApiKey vanished, and which is revoked
/// with its namespace. Where the ledger does not come to say so, it decides all the same: the mark is read only to put a lost
/// one together again.
pub(super) async fn mark(context: &Context, changes: &[Change]) -> Result<(), Problem> {
    for change in changes {
        if let Change::Release { attempt } = change {
            context.keystore.mark_released(attempt).await?;
        }
    }
    Ok(())
}
