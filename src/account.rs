//! Everything that concerns an account as a whole: credentials, lists, budgets, and slots without a living owner.

pub mod credentials;
pub mod listing;
pub mod lists;
pub mod memory;
