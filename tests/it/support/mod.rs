//! What several integration tests share.

pub(crate) mod checkpoint;
pub(crate) mod golden;
