//! Everything that concerns an account as a whole: credentials, lists, budgets, and slots without a living owner.

pub mod credentials;
pub mod listing;
pub mod lists;
pub mod memory;

use crate::context::Context;
use kube::runtime::controller::Action;
use std::sync::Arc;
/// stand-in until merged
pub async fn reconcile(context: &Arc<Context>, name: &str) -> Action {
    let i = context.settings.installation.clone();
    let _ = context
        .ledger
        .update(name, |d| {
            d.status.installation.get_or_insert(i.clone());
            Ok(())
        })
        .await;
    Action::await_change()
}
