//! The lifecycle of the served model: loading, reloads, hung engines, shutdown.

mod generation;
mod loading;
mod phase;
mod stopped;

pub(crate) use self::generation::Generation;
pub use self::loading::Prepared;
pub(crate) use self::loading::{Ends, Lifecycle};
pub use self::phase::Phase;
pub use self::stopped::{EngineStopped, ReloadError};
