//! What several integration tests share.

pub(crate) mod checkpoint;
pub(crate) mod engine;
pub(crate) mod golden;
pub(crate) mod http;
pub(crate) mod long_texts;
pub(crate) mod process;
pub(crate) mod scaler;
pub(crate) mod server;
