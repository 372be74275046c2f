//! Settings: flags, environment and a file as one checked, immutable [`Config`].
//!
//! Each flag has an environment variable, `INTENTD_<FLAG>` for a server. Settings of a server may also be
//! keys of the TOML file that `--config` names. Flags override variables, and variables override the file.
//! All mistakes are reported at once.
//!
//! Only this module calls `std::env`: for the variables of [`Platform`], and to recognize old names of
//! variables. The variables of flags, which `cli/` declares as well, are read by clap while it parses the
//! command line.

mod checks;
mod command_line;
mod effective;
mod hints;
mod host;
mod kafka;
mod list;
mod logging;
mod mistakes;
mod model;
mod platform;
mod ports;
mod relay;
mod renamed;
#[cfg(feature = "scaler")]
mod scaler;
mod serve;
mod server;
mod settings_file;
mod surface;
mod time;

pub use self::command_line::{CommandLine, CommandLineError};
pub use self::effective::EffectiveSettings;
pub use self::hints::HintArgs;
pub(crate) use self::host::parse_host;
pub use self::kafka::{KafkaArgs, KafkaGroupArgs, KafkaSourceArgs};
pub use self::list::ListItem;
pub use self::logging::LogFormat;
pub use self::mistakes::ConfigError;
pub use self::model::ModelArgs;
pub use self::platform::{Knative, Platform};
pub(crate) use self::ports::main_port;
pub use self::ports::{AdminPort, MainPort};
pub use self::relay::RelayArgs;
#[cfg(feature = "scaler")]
pub use self::scaler::{ScalerArgs, WakeArgs};
pub use self::serve::{ConnectionArgs, EndArgs, ListenArgs, LoadArgs, ServeArgs, TraceArgs};
pub use self::server::Config;
pub(crate) use self::settings_file::toml_mistake;
pub use self::surface::SurfaceArgs;
pub use self::time::TimeLimit;
