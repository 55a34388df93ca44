//! Marks the keystore Secrets of keys that are left to people.

use crate::{apikey::problem::Problem, context::Context, ledger::Change};

/// Sets the marks before the ledger records the release. If the ledger is lost, only the mark tells such a key from one whose
/// ApiKey vanished, which is revoked once its namespace is gone. If the ledger write then fails, the mark does no harm: it is
/// read only to rebuild a lost ledger.
pub(super) async fn mark(context: &Context, changes: &[Change]) -> Result<(), Problem> {
    for change in changes {
        if let Change::Release { attempt } = change {
            context.keystore.mark_released(attempt).await?;
        }
    }
    Ok(())
}
