//! The life of the model that serves: loading, reloads, an engine that hangs, the end.

mod generation;
mod phase;
mod serve;
mod stopped;

pub(crate) use self::generation::Generation;
pub use self::phase::Phase;
pub use self::serve::Prepared;
pub(crate) use self::serve::{Ends, Lifecycle};
pub use self::stopped::{EngineStopped, ReloadError};
