//! Table of decisions.
