//! The lifecycle of the served model: loading, reloads, hung engines, shutdown.

mod generation;
mod phase;
mod serve;
mod stopped;

pub(crate) use self::generation::Generation;
pub use self::phase::Phase;
pub use self::serve::Prepared;
pub(crate) use self::serve::{Ends, Lifecycle};
pub use self::stopped::{EngineStopped, ReloadError};
